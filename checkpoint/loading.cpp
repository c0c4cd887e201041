#include "checkpoint/loading.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <map>
#include <numeric>
#include <set>

#include "checkpoint/checkpoints.h"
#include "checkpoint/fold.h"
#include "checkpoint/selection.h"
#include "core/io/safetensors.h"
#include "kernels/api/printable.h"

namespace heddle {
namespace {

std::string tensor_text(DType dtype, std::span<const int64_t> shape) {
  std::string text(name_of(dtype));
  text += " (";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i > 0) text += ", ";
    text += std::to_string(shape[i]);
  }
  return text + ")";
}

// The hash of one tensor's identity and content; tensors come in name order.
class DigestBuilder {
 public:
  void tensor(std::string_view name, DType dtype, std::span<const int64_t> shape, const std::byte* data) {
    hash_.update("tensor ");
    hash_.update(name);
    hash_.update(" ");
    hash_.update(tensor_text(dtype, shape));
    hash_.update("\n");
    hash_.update(data, static_cast<size_t>(volume(whole_box(shape)) * size_of(dtype)));
  }
  std::string finish(std::string_view scalars) {
    hash_.update("\nscalars\n");
    hash_.update(scalars);
    return hex(hash_.finish());
  }

 private:
  Sha256 hash_;
};

}  // namespace

void check_tensors(const CheckpointReader& reader, std::span<const TensorIdentity> wanted, std::string_view prefix) {
  std::set<std::string_view> named;
  std::string missing, unexpected, different;
  // The first ones of each kind tell enough.
  const auto note = [](std::string& list, size_t& count, const std::string& line) {
    constexpr size_t kMostNamed = 20;
    if (++count <= kMostNamed) list += "\n  " + line;
    if (count == kMostNamed + 1) list += "\n  ...";
  };
  size_t missings = 0, unexpecteds = 0, differents = 0;
  const auto begins = [&](std::string_view name) { return name.substr(0, prefix.size()) == prefix; };
  for (const TensorIdentity& t : wanted) {
    if (!begins(t.name) || !named.insert(t.name).second) continue;
    const SavedTensor* const saved = reader.manifest().find(t.name);
    if (saved == nullptr) {
      note(missing, missings, concat("missing: ", t.name));
    } else if (saved->dtype != t.dtype || !std::equal(saved->global.begin(), saved->global.end(), t.global.begin(), t.global.end())) {
      note(different, differents,
           concat("differs: ", t.name, ": ", tensor_text(saved->dtype, saved->global), " saved, ", tensor_text(t.dtype, t.global), " wanted"));
    }
  }
  for (const SavedTensor& t : reader.manifest().tensors) {
    if (begins(t.name) && named.count(t.name) == 0) note(unexpected, unexpecteds, "unexpected: " + t.name);
  }
  if (!missing.empty() || !unexpected.empty() || !different.empty()) {
    fail("checkpoint", concat(reader.path(), ": its tensors are not those of the model:", missing, unexpected, different), ExitCode::bad_data);
  }
}

namespace {

// Consecutive elements of an entry: whole rows of the first axis.
struct Part {
  std::string_view name;
  Box box;
  View data;
};

std::vector<Part> parts_of(const StateDict::Entry& e, int64_t most_bytes) {
  const int64_t rows = e.box.empty() ? 1 : e.box[0].size();
  std::vector<Part> parts;
  if (rows == 0 || e.data.numel() == 0) return parts;
  const int64_t row = e.data.numel() / rows, bytes = row * size_of(e.data.dtype), most = std::max<int64_t>(most_bytes / bytes, 1);
  for (int64_t begin = 0; begin < rows; begin += most) {
    const int64_t end = std::min(begin + most, rows);
    Part& part = parts.emplace_back(Part{e.name, e.box, make_view(e.data.data + begin * bytes, e.data.dtype, {(end - begin) * row})});
    if (!part.box.empty()) part.box[0] = {e.box[0].begin + begin, e.box[0].begin + end};
  }
  return parts;
}

// Reads parts into host memory and brings them to their device.
void read_parts(const CheckpointReader& reader, std::span<const Part> parts, const CopyIn& copy_in) {
  std::vector<std::vector<std::byte>> staged;
  std::vector<Wanted> wanted;
  for (const Part& part : parts) {
    staged.emplace_back(static_cast<size_t>(part.data.bytes()));
    wanted.push_back({reader.manifest().find(part.name), part.box, staged.back().data()});
  }
  reader.read(wanted);
  for (size_t i = 0; i < parts.size(); ++i) copy_in(parts[i].data, staged[i].data(), staged[i].size());
}

}  // namespace

void read_state(const CheckpointReader& reader, const StateDict& into, std::string_view prefix, const CopyIn& copy_in, int64_t most_staged) {
  std::vector<Wanted> wanted;
  std::vector<Part> waiting;
  int64_t waiting_bytes = 0;
  for (const StateDict::Entry& e : into.tensors) {
    if (std::string_view(e.name).substr(0, prefix.size()) != prefix) continue;
    HEDDLE_CHECK(e.data.contiguous() && is_inside(e.box, e.global) && volume(e.box) == e.data.numel(), "checkpoint", "tensor \"", e.name, "\": box ",
                 box_text(e.box), " does not describe its view ", shape_text(e.data));
    if (!copy_in) {
      wanted.push_back({reader.manifest().find(e.name), e.box, e.data.data});
      continue;
    }
    for (Part& part : parts_of(e, most_staged)) {
      if (waiting_bytes + part.data.bytes() > most_staged) {
        read_parts(reader, waiting, copy_in);
        waiting.clear();
        waiting_bytes = 0;
      }
      waiting_bytes += part.data.bytes();
      waiting.push_back(std::move(part));
    }
  }
  if (copy_in) return read_parts(reader, waiting, copy_in);
  reader.read(wanted);
}

uint64_t fold_state_entry(const StateDict::Entry& entry, const CopyOut& copy_out, int64_t most_staged) {
  if (!copy_out) return fold_piece(entry.name, entry.data.dtype, entry.global, entry.box, entry.data.data);
  uint64_t sum = 0;
  for (const Part& part : parts_of(entry, most_staged)) {
    std::vector<std::byte> host(static_cast<size_t>(part.data.bytes()));
    copy_out(host.data(), part.data, host.size());
    sum += fold_piece(entry.name, entry.data.dtype, entry.global, part.box, host.data());
  }
  return sum;
}

CheckpointReader open_checkpoint(FileSystem& fs, const std::string& given) {
  std::string path = given;
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  if (const std::string ending = std::string("/") + kManifest; path.size() > ending.size() && path.ends_with(ending))
    path.resize(path.size() - ending.size());
  const int h = fs.open_root(path.c_str());
  if (h < 0) fail_io("checkpoint", "open", path, h);
  const Handle root(fs, h);
  if (fs.exists(h, kManifest) == 0) {
    CheckpointReader reader(fs, h, ".", path, std::nullopt);
    for (uint64_t i = 0; i < reader.manifest().shards.size(); ++i) reader.verify(i);
    return reader;
  }
  const RunDirectory run(fs, path, false);
  const auto bases = run.read_bases();
  const RunDirectory::Listing listing = run.list();
  std::string reasons;
  for (const Candidate& c : order_candidates(listing.committed, bases)) {
    if (c.dead) continue;
    try {
      CheckpointReader reader(fs, run.checkpoints(), text_of(c.id).c_str(), run.path_of(c.id), c.id);
      for (uint64_t i = 0; i < reader.manifest().shards.size(); ++i) reader.verify(i);
      if (!reasons.empty())
        std::fprintf(stderr, "%s\n",
                     printable(concat("warning: using ", run.path_of(c.id), "; newer checkpoints do not verify:", reasons), true).c_str());
      return reader;
    } catch (const Error& e) {
      if (e.code() != ExitCode::bad_data) throw;
      reasons += concat("\n  ", e.what());
    }
  }
  fail("checkpoint", reasons.empty() ? concat(path, " holds no checkpoint") : concat("no checkpoint in ", path, " verifies:", reasons),
       ExitCode::bad_data);
}

Checkpoints::Loaded read_checkpoint(const std::string& path, StateDict& into, std::string_view prefix, FileSystem& fs) {
  const CheckpointReader reader = open_checkpoint(fs, path);
  std::vector<TensorIdentity> wanted;
  for (const StateDict::Entry& e : into.tensors) wanted.push_back({e.name, e.data.dtype, e.global});
  check_tensors(reader, wanted, prefix);
  read_state(reader, into, prefix, {});
  const Manifest& m = reader.manifest();
  into.scalars = m.scalars;
  return {m.step, m.scalars, m.config, m.environment};
}

Checkpoints::Loaded describe_checkpoint(const std::string& path, FileSystem& fs) {
  const CheckpointReader reader = open_checkpoint(fs, path);
  const Manifest& m = reader.manifest();
  return {m.step, m.scalars, m.config, m.environment};
}

std::string digest(const StateDict& state) {
  std::map<std::string_view, const StateDict::Entry*> sorted;
  for (const StateDict::Entry& e : state.tensors) {
    HEDDLE_CHECK(e.box == whole_box(e.global) && e.data.contiguous() && sorted.emplace(e.name, &e).second, "checkpoint", "tensor \"", e.name,
                 "\" is not whole, so its digest needs the other ranks; take it of a checkpoint");
  }
  DigestBuilder builder;
  for (const auto& [name, e] : sorted) builder.tensor(name, e->data.dtype, e->global, e->data.data);
  return builder.finish(state.scalars);
}

std::string digest(const std::string& path, FileSystem& fs) {
  return digest(open_checkpoint(fs, path));
}

std::string digest(const CheckpointReader& reader) {
  DigestBuilder builder;
  std::vector<std::byte> data;
  for (const SavedTensor& t : reader.manifest().tensors) {
    data.resize(static_cast<size_t>(t.bytes()));
    const Wanted want{&t, whole_box(t.global), data.data()};
    reader.read({&want, 1});
    builder.tensor(t.name, t.dtype, t.global, data.data());
  }
  return builder.finish(reader.manifest().scalars);
}

}  // namespace heddle
