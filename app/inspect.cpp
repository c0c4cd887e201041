#include "checkpoint/inspect.h"

#include <filesystem>
#include <iomanip>
#include <iostream>
#include <optional>

#include "app/command.h"
#include "app/model_commands.h"
#include "core/io/sha256.h"
#include "data/dataset.h"
#include "data/file.h"
#include "data/shard.h"
#include "data/tokenizer.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"

namespace heddle::app {
namespace {

constexpr CommandHelp kHelp = {
    "inspect", "PATH [--verify] [--digest] [--details]",
    "Says what a run directory, a checkpoint directory, a .safetensors file, a token shard, a data set's folder or a tokenizer holds. Nothing "
    "on the disk is changed, and no lock is taken: a run may be inspected while it trains.",
    "  heddle inspect run\n"
    "  heddle inspect run --details           # every checkpoint, tensor, option and counter\n"
    "  heddle inspect run --digest            # equal digests: equal weights, optimizer state and counters\n"
    "  heddle inspect run --verify            # reads every byte of every checkpoint; 65 if one is damaged\n"
    "  heddle inspect data/kjv --verify       # every shard against dataset.json\n"
    "  heddle inspect data/kjv/tokenizer.json"};

void row(std::string_view name, const std::string& value) {
  std::cout << std::left << std::setw(14) << name << std::right << printable(value) << "\n";
}

// Against its record in dataset.json, if there is one: hash, count, every token below the vocabulary size. Prints one line; false for damage.
bool verify_shard(const std::string& path, const DatasetInfo::Shard* record, int64_t vocab) {
  const std::string shown = printable(path);
  try {
    const ShardReader shard(path);
    if (record == nullptr) {
      std::cout << "  ok       " << shown << "  every rule of the format holds; no dataset.json beside it records its hash\n";
      return true;
    }
    const std::string hash = shard.sha256();
    if (hash != record->sha256) {
      std::cout << "  DAMAGED  " << shown << "  sha256 " << hash << ", dataset.json records " << record->sha256 << "\n";
      return false;
    }
    if (shard.tokens() != record->tokens) {
      std::cout << "  DAMAGED  " << shown << "  " << counted(shard.tokens(), "token") << ", dataset.json records " << record->tokens << "\n";
      return false;
    }
    shard.check_tokens(vocab);
    std::cout << "  ok       " << shown << "  sha256 " << hash << "\n";
  } catch (const Error& e) {
    if (e.code() != ExitCode::bad_data && e.code() != ExitCode::io) throw;
    std::cout << "  DAMAGED  " << shown << "  " << e.what() << "\n";
    return false;
  }
  return true;
}

bool inspect_shard(const InspectArguments& a) {
  const std::optional<DatasetInfo> info = DatasetInfo::load(directory_name(a.path));
  const ShardReader shard(a.path);
  if (a.digest) {
    std::cout << shard.sha256() << "\n";
    return true;
  }
  row("token shard", shard.path());
  row("tokens", std::to_string(shard.tokens()));
  row("type", concat("uint", shard.token_bytes() * 8));
  row("largest", std::to_string(shard.largest_token()));
  if (const DatasetInfo::Shard* const record = info ? info->find(base_name(a.path)) : nullptr) {
    row("vocabulary", std::to_string(info->vocab));
    row("split", record->split);
    row("documents", std::to_string(record->documents));
    row("text", counted(record->bytes, "byte"));
  }
  if (!a.verify) return true;
  std::cout << "verification\n";
  return verify_shard(a.path, info ? info->find(base_name(a.path)) : nullptr, info ? info->vocab : 0);
}

bool inspect_tokenizer(const InspectArguments& a) {
  const Tokenizer tokenizer = Tokenizer::load(a.path);
  if (a.digest) {
    std::cout << tokenizer.fingerprint() << "\n";
    return true;
  }
  row("tokenizer", a.path);
  row("vocabulary", std::to_string(tokenizer.vocab_size()));
  row("end of text", std::to_string(tokenizer.eot()));
  row("fingerprint", tokenizer.fingerprint());
  if (a.verify) std::cout << "verification\n  ok       every rule of the format holds (the format itself carries no hashes)\n";
  return true;
}

// A folder that `heddle tokenize` wrote, or its dataset.json.
bool inspect_dataset(const InspectArguments& a, const std::string& folder) {
  const DatasetInfo info = *DatasetInfo::load(folder);
  if (a.digest) {
    std::cout << hex(sha256(info.to_json())) << "\n";
    return true;
  }
  row("data set", folder);
  row("tokenizer", concat(info.tokenizer, ", fingerprint ", info.tokenizer_fingerprint));
  row("vocabulary", std::to_string(info.vocab));
  row("end of text", concat(info.eot, " (", name_of(info.eot_position), ")"));
  for (const std::string_view split : {"train", "val"}) {
    uint64_t shards = 0, tokens = 0, bytes = 0, documents = 0;
    for (const DatasetInfo::Shard& s : info.shards) {
      if (s.split != split) continue;
      ++shards, tokens += static_cast<uint64_t>(s.tokens), documents += static_cast<uint64_t>(s.documents);
      bytes = std::min<uint64_t>(bytes + static_cast<uint64_t>(s.bytes), INT64_MAX);  // a record may say anything
    }
    if (shards > 0)
      row(split, concat(counted(shards, "shard"), ", ", counted(tokens, "token"), ", ", counted(documents, "document"), ", ", counted(bytes, "byte"),
                        " of text"));
  }
  if (!a.verify) return true;
  std::cout << "verification\n";
  bool whole = true;
  for (const DatasetInfo::Shard& s : info.shards) whole = verify_shard(concat(folder, "/", s.file), &s, info.vocab) && whole;
  const std::string tokenizer = concat(folder, "/", info.tokenizer);
  try {
    const std::string fingerprint = Tokenizer::load(tokenizer).fingerprint();
    const bool same = fingerprint == info.tokenizer_fingerprint;
    std::cout << (same ? "  ok       " : "  DAMAGED  ") << printable(tokenizer) << "  fingerprint " << fingerprint
              << (same ? "" : ", dataset.json records another") << "\n";
    whole = whole && same;
  } catch (const Error& e) {
    std::cout << "  DAMAGED  " << printable(tokenizer) << "  " << e.what() << "\n";
    whole = false;
  }
  return whole;
}

bool inspect_any(const InspectArguments& a) {
  namespace fs = std::filesystem;
  if (a.path.ends_with(".bin")) return inspect_shard(a);
  if (base_name(a.path) == "dataset.json") return inspect_dataset(a, directory_name(a.path));
  const Inspectable kind = recognize(a.path);
  if (kind == Inspectable::other) {
    if (fs::exists(fs::path(a.path) / "dataset.json")) return inspect_dataset(a, a.path);
    // A tokenizer's file, or a folder of one in either of its forms.
    if (a.path.ends_with(".json") || fs::exists(fs::path(a.path) / "tokenizer.json") || fs::exists(fs::path(a.path) / "vocab.bpe")) {
      return inspect_tokenizer(a);
    }
  }
  return inspect(a.path, {.verify = a.verify, .digest = a.digest, .details = a.details}, std::cout);
}

}  // namespace

bool parse_inspect(Args args, InspectArguments& arguments) {
  using I = InspectArguments;
  static const std::vector<Option<I>> table = [] {
    std::vector<Option<I>> rows;
    rows.push_back(make_option<I>("PATH", &I::path, "Arguments", "", "run, checkpoint, .safetensors, token shard, data set or tokenizer").argument());
    rows.push_back(make_option<I>("verify", &I::verify, "Output", "", "read every byte and compare every hash; 65 for damage"));
    rows.push_back(make_option<I>("digest", &I::digest, "Output", "",
                                  "print only the step and one SHA-256 over all tensors and counters; of other things their own hash"));
    rows.push_back(
        make_option<I>("details", &I::details, "Output", "", "of a run: every checkpoint, and every tensor, option and counter of the newest"));
    return rows;
  }();
  if (!parse_arguments(kHelp, bind_options(std::span<const Option<I>>(table), arguments), args)) return false;
  if (arguments.path.empty()) fail_usage("inspect", "nothing to look at: give a run directory or a file, as in heddle inspect run");
  if (arguments.verify && arguments.digest) {
    fail_usage("inspect", "--verify and --digest print different things: give one, --verify for every byte, --digest for the state as one hash");
  }
  return true;
}

int inspect_command(Args args) {
  InspectArguments arguments;
  if (!parse_inspect(args, arguments)) return 0;
  return inspect_any(arguments) ? 0 : static_cast<int>(ExitCode::bad_data);
}

}  // namespace heddle::app
