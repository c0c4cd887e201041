#include "checkpoint/inspect.h"

#include <algorithm>
#include <cstring>
#include <iomanip>
#include <ostream>
#include <sstream>

#include "checkpoint/checkpoints.h"
#include "checkpoint/loading.h"
#include "checkpoint/reader.h"
#include "checkpoint/selection.h"
#include "core/io/safetensors_file.h"
#include "core/io/sha256.h"
#include "kernels/api/printable.h"

namespace heddle {
namespace {

std::string directory_of(const std::string& path) {
  std::string d = path;
  while (d.size() > 1 && d.back() == '/') d.pop_back();
  const std::string ending = std::string("/") + kManifest;
  if (d == kManifest) return ".";
  if (d.ends_with(ending)) d.resize(d.size() - ending.size());
  return d;
}

std::string size_text(uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  std::ostringstream out;
  out << std::fixed << std::setprecision(unit == 0 ? 0 : 1) << value << ' ' << kUnits[unit];
  return out.str();
}

constexpr size_t kMostWords = 100;

template <class Sizes>
std::string shape_text_of(const Sizes& shape) {
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + ")";
}

struct Row {
  std::string name, dtype, shape, size, where;
};

void print_table(const std::vector<Row>& rows, std::ostream& out) {
  size_t name = 4, shape = 5, size = 4;
  for (const Row& r : rows) {
    name = std::max(name, r.name.size());
    shape = std::max(shape, r.shape.size());
    size = std::max(size, r.size.size());
  }
  for (const Row& r : rows) {
    out << "  " << std::left << std::setw(static_cast<int>(name)) << r.name << "  " << std::setw(5) << r.dtype << "  "
        << std::setw(static_cast<int>(shape)) << r.shape << "  " << std::right << std::setw(static_cast<int>(size)) << r.size;
    if (!r.where.empty()) out << "  " << r.where;
    out << '\n';
  }
}

void print_text(const char* title, const std::string& text, std::ostream& out) {
  if (text.empty()) return;
  out << title << '\n';
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) out << "  " << printable(line) << '\n';
}

// Sums over tables that may say anything stay at the end of the range.
uint64_t plus(uint64_t a, uint64_t b) {
  return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

uint64_t bytes_of(const Manifest& m) {
  uint64_t bytes = 0;
  for (const SavedShard& s : m.shards) bytes = plus(bytes, s.bytes);
  return bytes;
}

uint64_t elements_of(const SavedTensor& t) {
  return static_cast<uint64_t>(volume(whole_box(t.global)));
}

void print_head(const Manifest& m, std::ostream& out) {
  uint64_t elements = 0;
  for (const SavedTensor& t : m.tensors) elements = plus(elements, elements_of(t));
  out << "step          " << m.step << "\nincarnation   " << m.incarnation << "\nshards        " << m.shards.size() << ", " << size_text(bytes_of(m))
      << "\ntensors       " << m.tensors.size() << ", " << elements << " elements\nmanifest      " << hex(m.self) << '\n';
}

// What a checkpoint holds of each kind: model, optim.m, ... The largest ones by name.
void print_summary(const Manifest& m, std::ostream& out) {
  constexpr size_t kMostKinds = 6;
  struct Kind {
    std::string name;
    uint64_t tensors = 0, elements = 0, bytes = 0;
    void add(uint64_t t, uint64_t e, uint64_t b) { tensors += t, elements = plus(elements, e), bytes = plus(bytes, b); }
  };
  std::vector<Kind> kinds;  // tensors come by name, so a kind's follow each other
  for (const SavedTensor& t : m.tensors) {
    const size_t dot = std::min(t.name.find('.'), t.name.size());
    const std::string name = t.name.substr(0, t.name.rfind("model.", 0) == 0 ? dot : t.name.find('.', dot + 1));
    if (kinds.empty() || kinds.back().name != name) kinds.push_back({name});
    kinds.back().add(1, elements_of(t), static_cast<uint64_t>(t.bytes()));
  }
  std::stable_sort(kinds.begin(), kinds.end(), [](const Kind& a, const Kind& b) { return a.bytes > b.bytes; });
  for (; kinds.size() > kMostKinds + 1; kinds.pop_back()) {
    Kind& others = kinds[kMostKinds];
    others.name = "others";
    others.add(kinds.back().tensors, kinds.back().elements, kinds.back().bytes);
  }
  size_t width = 10;
  for (const Kind& k : kinds) width = std::max(width, k.name.size());
  for (const Kind& k : kinds) {
    out << "  " << std::left << std::setw(static_cast<int>(width)) << k.name << "  " << std::right << counted(k.tensors, "tensor") << ", "
        << counted(k.elements, "element") << ", " << size_text(k.bytes) << '\n';
  }
}

void print_manifest(const Manifest& m, std::ostream& out) {
  std::vector<Row> rows;
  for (const SavedTensor& t : m.tensors) {
    Row row{t.name, std::string(name_of(t.dtype)), shape_text_of(t.global), size_text(static_cast<uint64_t>(t.bytes())), {}};
    if (t.pieces.size() > 1) row.where = concat(t.pieces.size(), " pieces");
    rows.push_back(std::move(row));
  }
  print_head(m, out);
  print_text("environment", m.environment, out);
  print_text("scalars", m.scalars, out);
  print_text("config", m.config, out);
  out << "contents\n";
  print_table(rows, out);
}

// Every hash of an open checkpoint; one line a file.
bool verify_all(const CheckpointReader& reader, std::ostream& out) {
  bool whole = true;
  for (uint64_t i = 0; i < reader.manifest().shards.size(); ++i) {
    Name name;
    shard_name(i, reader.manifest().shards.size(), name);
    try {
      reader.verify(i);
      out << "  ok       " << name << "  sha256 " << hex(reader.manifest().shards[i].sha256) << '\n';
    } catch (const Error& e) {
      if (e.code() != ExitCode::bad_data) throw;
      out << "  DAMAGED  " << name << "  " << e.what() << '\n';
      whole = false;
    }
  }
  return whole;
}

bool inspect_checkpoint(FileSystem& fs, const std::string& path, const InspectOptions& options, std::ostream& out) {
  const std::string directory = directory_of(path);
  const int h = fs.open_root(directory.c_str());
  if (h < 0) fail_io("inspect", "open", directory, h);
  const Handle root(fs, h);
  const CheckpointReader reader(fs, h, ".", directory, std::nullopt);
  out << "checkpoint    " << printable(directory) << '\n';
  print_manifest(reader.manifest(), out);
  if (!options.verify) return true;
  out << "verification\n  ok       " << kManifest << "  sha256 " << hex(reader.manifest().self) << '\n';
  return verify_all(reader, out);
}

bool inspect_run(FileSystem& fs, const std::string& path, const InspectOptions& options, std::ostream& out) {
  const RunDirectory run(fs, path, false);
  const RunDirectory::Listing listing = run.list();
  const auto candidates = order_candidates(listing.committed, run.read_bases());
  out << "run           " << printable(path) << '\n';
  // A screenful, unless every line was asked for.
  constexpr size_t kMostLines = 4;
  const size_t most = options.details || options.verify ? SIZE_MAX : kMostLines;
  bool whole = true;
  size_t lines = 0;
  std::optional<CheckpointReader> newest;
  for (const Candidate& c : candidates) {
    if (lines >= most && newest) break;
    ++lines;
    out << "  " << std::left << std::setw(16) << text_of(c.id) << std::right << (c.dead ? "dead: a later start went back behind it" : "current");
    try {
      CheckpointReader reader(fs, run.checkpoints(), text_of(c.id).c_str(), run.path_of(c.id), c.id);
      const size_t shards = reader.manifest().shards.size();
      out << ", " << counted(shards, "shard") << ", " << size_text(bytes_of(reader.manifest())) << '\n';
      if (options.verify) whole = verify_all(reader, out) && whole;
      if (!newest && !c.dead) newest.emplace(std::move(reader));
    } catch (const Error& e) {
      if (e.code() != ExitCode::bad_data) throw;
      out << "\n  DAMAGED  " << e.what() << '\n';
      whole = whole && !options.verify;
    }
  }
  if (lines < candidates.size()) out << "  and " << candidates.size() - lines << " older ones\n";
  const auto each_or_count = [&](size_t count, const char* what, const auto& each) {
    if (most < SIZE_MAX && count > 1) {
      out << "  " << count << ' ' << what << '\n';
    } else {
      for (size_t i = 0; i < count; ++i) each(i);
    }
  };
  each_or_count(listing.unfinished.size(), "unfinished checkpoints, no MANIFEST", [&](size_t i) {
    out << "  " << std::left << std::setw(16) << text_of(listing.unfinished[i]) << std::right << "unfinished, no " << kManifest << '\n';
  });
  const std::vector<RunDirectory::Leftover> leftovers = run.leftovers();
  each_or_count(leftovers.size(), "unfinished checkpoints in quarantine/",
                [&](size_t i) { out << "  quarantine/" << printable(leftovers[i].directory) << '\n'; });
  if (!newest) {
    out << "  no readable checkpoint\n";
    return whole && candidates.empty();
  }
  out << "newest        " << printable(newest->path()) << '\n';
  if (options.details) {
    print_manifest(newest->manifest(), out);
    return whole;
  }
  print_head(newest->manifest(), out);
  print_summary(newest->manifest(), out);
  if (const std::string& said = newest->manifest().environment; !said.empty()) {
    out << "written by    " << printable(std::string_view(said).substr(0, std::min(said.find('\n'), kMostWords))) << '\n';
  }
  out << "details       heddle inspect " << printable(path) << " --details: every checkpoint, tensor, option and counter\n";
  return whole;
}

bool inspect_safetensors(FileSystem& fs, const std::string& path, const InspectOptions& options, std::ostream& out) {
  const SafetensorsFile file(path, {}, fs);
  const SafetensorsHeader& header = file.header();
  if (options.digest) {
    // The file's bytes: a plain file has no step and no slices.
    const Handle h(fs, fs.open_linked_file(path.c_str()));
    std::vector<std::byte> block(size_t{1} << 20);
    Sha256 hash;
    for (uint64_t at = 0; at < header.file_size; at += block.size()) {
      const size_t n = static_cast<size_t>(std::min<uint64_t>(block.size(), header.file_size - at));
      read_exact(fs, h.get(), block.data(), n, at, path);
      hash.update(block.data(), n);
    }
    out << hex(hash.finish()) << '\n';
    return true;
  }
  out << "safetensors   " << printable(path) << "\nsize          " << size_text(header.file_size) << ", header " << size_text(header.data_begin)
      << "\ntensors       " << header.tensors.size() << '\n';
  if (!header.metadata.empty()) out << "metadata\n";
  for (const auto& [key, value] : header.metadata) out << "  " << printable(key) << " = " << printable(value) << '\n';
  out << "contents\n";
  std::vector<Row> rows;
  for (const FileTensor& t : header.tensors) {
    rows.push_back({printable(t.name), std::string(name_of(t.type)), shape_text_of(t.shape), size_text(t.end - t.begin), {}});
  }
  print_table(rows, out);
  if (options.verify) out << "verification\n  ok       every rule of the format holds (the format itself carries no hashes)\n";
  return true;
}

}  // namespace

Inspectable recognize(const std::string& path, FileSystem& fs) {
  const std::string directory = directory_of(path);
  if (const int h = fs.open_root(directory.c_str()); h >= 0) {
    const Handle root(fs, h);
    if (fs.exists(h, kManifest) == 0) return Inspectable::checkpoint;
    const bool run = fs.exists(h, "inc") == 0 && fs.exists(h, "ckpt") == 0;
    return run ? Inspectable::run : Inspectable::other;
  }
  const int h = fs.open_linked_file(path.c_str());
  if (h < 0) fail_io("inspect", "open", path, h);
  const Handle file(fs, h);
  FileInfo info;
  char first[9] = {};
  if (fs.info(h, info) < 0 || !info.regular || info.size < 10 || fs.read(h, first, sizeof first, 0) != sizeof first) return Inspectable::other;
  uint64_t n = 0;
  std::memcpy(&n, first, 8);
  return first[8] == '{' && n <= SafetensorsLimits().header_bytes && n <= info.size - 8 ? Inspectable::safetensors : Inspectable::other;
}

bool inspect(const std::string& path, const InspectOptions& options, std::ostream& out, FileSystem& fs) {
  const Inspectable kind = recognize(path, fs);
  if (kind == Inspectable::other) {
    fail("inspect",
         concat(path,
                ": inspect reads a run directory, a checkpoint, a .safetensors file, a token shard (.bin), a folder that heddle tokenize wrote, "
                "and a tokenizer.json; this is none of them"),
         ExitCode::usage);
  }
  if (kind == Inspectable::safetensors) return inspect_safetensors(fs, path, options, out);
  if (options.digest) {
    const CheckpointReader reader = open_checkpoint(fs, directory_of(path));
    out << "step " << reader.manifest().step << " digest " << digest(reader) << '\n';
    return true;
  }
  return kind == Inspectable::run ? inspect_run(fs, directory_of(path), options, out) : inspect_checkpoint(fs, path, options, out);
}

}  // namespace heddle
