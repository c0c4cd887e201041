#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iomanip>
#include <iostream>

#include "app/command.h"
#include "app/model_commands.h"
#include "core/io/safetensors_file.h"
#include "data/shard.h"
#include "kernels/api/check.h"
#include "train/checkpoint/checkpoints.h"
#include "train/checkpoint/loading.h"
#include "train/checkpoint/run_directory.h"
#include "train/checkpoint/selection.h"
#include "train/console.h"

namespace heddle::app {
namespace {

namespace fs = std::filesystem;

constexpr CommandHelp kHelp = {
    "inspect", "PATH [--verify] [--digest] [--tensors]",
    "Says what a run directory (its newest verified checkpoint), a checkpoint directory, a .safetensors file or a token\n"
    "shard holds. Nothing on the disk is changed.",
    "  heddle inspect run\n"
    "  heddle inspect run --digest            # equal digests: equal weights, optimizer state and counters, however sliced\n"
    "  heddle inspect run --verify            # reads back every checkpoint; 65 if one is damaged\n"
    "  heddle inspect shards/train_000000.bin"};

void line(std::string_view what, const std::string& text) {
  std::cout << std::left << std::setw(10) << what << text << "\n";
}

std::string shape_text(const auto& shape) {
  std::string out = "(";
  for (const auto size : shape) out += concat(out.size() > 1 ? ", " : "", size);
  return out + ")";
}

void tensor_line(std::string_view name, std::string_view dtype, const std::string& shape) {
  std::cout << "  " << std::left << std::setw(6) << dtype << std::setw(20) << shape << name << "\n";
}

void inspect_checkpoint(const InspectOptions& options) {
  const CheckpointReader reader = open_checkpoint(real_file_system(), options.path);
  const Manifest& m = reader.manifest();
  double bytes = 0, elements = 0;
  for (const SavedTensor& t : m.tensors) {
    bytes += static_cast<double>(t.bytes());
    elements += static_cast<double>(t.bytes() / size_of(t.dtype));
  }
  line("path", reader.path());
  line("step", std::to_string(m.step));
  line("start", concat("incarnation ", m.incarnation));
  line("tensors", concat(m.tensors.size(), ", ", amount_text(elements), " elements, ", bytes_text(bytes)));
  line("shards", concat(m.shards.size(), ", every byte verified"));
  line("counters", m.scalars);
  if (!m.environment.empty()) line("written by", m.environment);
  if (options.digest) line("digest", digest(reader.path()));
  if (options.tensors) {
    for (const SavedTensor& t : m.tensors) tensor_line(t.name, name_of(t.dtype), shape_text(t.global));
  }
}

// Every committed checkpoint of a run, newest first. Error(bad_data) at the end when one is damaged.
void verify_run(const std::string& path) {
  const RunDirectory run(real_file_system(), path, false);
  const auto bases = run.read_bases();
  const RunDirectory::Listing listing = run.list();
  size_t damaged = 0;
  for (const Candidate& c : order_candidates(listing.committed, bases)) {
    try {
      const CheckpointReader reader(real_file_system(), run.checkpoints(), text_of(c.id).c_str(), run.path_of(c.id), c.id);
      for (uint64_t i = 0; i < reader.manifest().shards.size(); ++i) reader.verify(i);
      line(text_of(c.id), c.dead ? "verified, on an abandoned branch" : "verified");
    } catch (const Error& e) {
      if (e.code() != ExitCode::bad_data) throw;
      ++damaged;
      line(text_of(c.id), concat("DAMAGED: ", e.what()));
    }
  }
  if (listing.committed.empty()) fail("inspect", concat(path, " holds no checkpoint"), ExitCode::bad_data);
  if (damaged > 0) fail("inspect", concat(damaged, " of ", listing.committed.size(), " checkpoints in ", path, " are damaged"), ExitCode::bad_data);
}

void inspect_safetensors(const InspectOptions& options) {
  const SafetensorsFile file(options.path);
  line("path", file.path());
  line("tensors", concat(file.header().tensors.size(), ", ", bytes_text(static_cast<double>(file.header().file_size))));
  for (const auto& [key, value] : file.header().metadata) line(key, value.substr(0, 200));
  if (options.tensors) {
    for (const FileTensor& t : file.header().tensors) tensor_line(t.name, name_of(t.type), shape_text(t.shape));
  }
}

void inspect_shard(const InspectOptions& options) {
  const ShardReader shard(options.path);
  line("path", shard.path());
  line("tokens", concat(shard.tokens(), ", uint", shard.token_bytes() * 8));
  line("largest", std::to_string(shard.largest_token()));
}

}  // namespace

bool parse_inspect(Args args, InspectOptions& options) {
  using I = InspectOptions;
  static const std::vector<Option<I>> table = [] {
    std::vector<Option<I>> rows;
    rows.push_back(make_option<I>("PATH", &I::path, "Arguments", "", "run directory, checkpoint directory, .safetensors or token shard").argument());
    rows.push_back(make_option<I>("verify", &I::verify, "Output", "", "of a run: read back every checkpoint, also those a resume would not take"));
    rows.push_back(
        make_option<I>("digest", &I::digest, "Output", "", "one SHA-256 over all logical tensors, optimizer state and counters, in name order"));
    rows.push_back(make_option<I>("tensors", &I::tensors, "Output", "", "list every tensor: dtype, shape, name"));
    return rows;
  }();
  if (!parse_arguments(kHelp, bind_options(std::span<const Option<I>>(table), options), args)) return false;
  if (options.path.empty()) fail_usage("inspect", "nothing to look at: give a run directory or a file, as in heddle inspect run");
  return true;
}

int inspect_command(Args args) {
  InspectOptions options;
  if (!parse_inspect(args, options)) return 0;
  std::error_code error;
  if (fs::is_regular_file(options.path, error) && fs::path(options.path).filename() != kManifest) {
    const bool is_shard = fs::path(options.path).extension() == ".bin";
    if (options.digest || options.verify) fail_usage("inspect", "--digest and --verify are for runs and checkpoints");
    is_shard ? inspect_shard(options) : inspect_safetensors(options);
    return 0;
  }
  inspect_checkpoint(options);
  if (options.verify && fs::is_directory(fs::path(options.path) / "ckpt", error)) verify_run(options.path);
  return 0;
}

}  // namespace heddle::app
