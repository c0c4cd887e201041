#include "checkpoint/reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <tuple>

#include "checkpoint/plan.h"
#include "core/io/crc32c.h"
#include "core/io/safetensors.h"

namespace heddle {
namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& rule) {
  fail("checkpoint", concat(path, ": ", rule), ExitCode::bad_data);
}

// Hands out any bytes of one shard through one block at a time, each checked against its CRC as it comes in.
class BlockReader {
 public:
  explicit BlockReader(const FileSystem& fs) : fs_(fs), block_(kBlockBytes) {}

  void open(const Handle& file, const SavedShard& shard, const std::string& path) {
    file_ = &file;
    shard_ = &shard;
    path_ = path;
    current_ = UINT64_MAX;
  }

  void read(uint64_t offset, std::byte* to, uint64_t bytes) {
    while (bytes > 0) {
      const uint64_t index = offset / kBlockBytes, begin = offset % kBlockBytes;
      load(index);
      const uint64_t n = std::min(bytes, kBlockBytes - begin);
      std::memcpy(to, block_.data() + begin, n);
      to += n;
      offset += n;
      bytes -= n;
    }
  }

 private:
  void load(uint64_t index) {
    if (index == current_) return;
    current_ = UINT64_MAX;
    const uint64_t begin = index * kBlockBytes, size = std::min(kBlockBytes, shard_->bytes - begin);
    read_exact(fs_, file_->get(), block_.data(), size, begin, path_);
    if (crc32c(block_.data(), size) != shard_->crc32c[index]) {
      refuse(path_,
             concat("block ", index, " (bytes ", begin, " to ", begin + size, ") does not match its checksum; it has been changed or damaged"));
    }
    current_ = index;
  }

  const FileSystem& fs_;
  std::vector<std::byte> block_;
  const Handle* file_ = nullptr;
  const SavedShard* shard_ = nullptr;
  std::string path_;
  uint64_t current_ = UINT64_MAX;
};

}  // namespace

CheckpointReader::CheckpointReader(FileSystem& fs, int at, const char* name, std::string path, std::optional<CheckpointId> expected)
    : fs_(&fs), path_(std::move(path)) {
  const int h = fs.open_directory(at, name);
  if (h == -ELOOP || h == -ENOTDIR || h == -ENOENT) refuse(path_, "is not a directory");
  if (h < 0) fail_io("checkpoint", "open", path_, h);
  directory_ = Handle(fs, h);
  const std::string place = path_ + "/" + kManifest;
  manifest_ = parse_manifest(read_small_file(fs, h, kManifest, place, kMostManifestBytes), place);
  if (expected && (manifest_.step != expected->step || manifest_.incarnation != expected->incarnation)) {
    refuse(place, concat("is that of ", text_of({manifest_.step, manifest_.incarnation}), ", from another directory"));
  }

  std::vector<std::string> found;
  if (const int r = fs.list(h, found); r < 0) fail_io("checkpoint", "list", path_, r);
  std::sort(found.begin(), found.end());
  std::vector<std::string> listed{kManifest};
  for (uint64_t i = 0; i < manifest_.shards.size(); ++i) {
    Name shard;
    shard_name(i, manifest_.shards.size(), shard);
    listed.emplace_back(shard);
  }
  std::sort(listed.begin(), listed.end());
  std::vector<std::string> difference;
  std::set_difference(listed.begin(), listed.end(), found.begin(), found.end(), std::back_inserter(difference));
  if (!difference.empty()) refuse(path_ + "/" + difference[0], "is missing");
  std::set_difference(found.begin(), found.end(), listed.begin(), listed.end(), std::back_inserter(difference));
  if (!difference.empty()) refuse(path_ + "/" + difference[0], "does not belong to this checkpoint; nothing may be added to its directory");
  for (uint64_t i = 0; i < manifest_.shards.size(); ++i) {
    std::string shard_path;
    open_shard(i, shard_path);
  }
  for (size_t t = 0; t < manifest_.tensors.size(); ++t) {
    const SavedTensor& tensor = manifest_.tensors[t];
    for (size_t p = 0; p < tensor.pieces.size(); ++p) {
      const SavedPiece& piece = tensor.pieces[p];
      extents_.push_back({piece.shard, piece.offset, static_cast<uint64_t>(volume(piece.box) * size_of(tensor.dtype)), t, p});
    }
  }
  // An empty piece has no place of its own; safetensors orders tensors by (begin, end).
  std::sort(extents_.begin(), extents_.end(),
            [](const Extent& a, const Extent& b) { return std::tie(a.shard, a.begin, a.bytes) < std::tie(b.shard, b.begin, b.bytes); });
}

Handle CheckpointReader::open_shard(uint64_t shard, std::string& path) const {
  Name name;
  shard_name(shard, manifest_.shards.size(), name);
  path = path_ + "/" + name;
  FileInfo info;
  Handle file = open_regular(*fs_, directory_.get(), name, path, &info);
  if (const uint64_t bytes = manifest_.shards[shard].bytes; info.size != bytes) {
    refuse(path, concat("has ", info.size, " bytes, ", bytes, " were saved"));
  }
  return file;
}

void CheckpointReader::check_header(uint64_t shard, const Handle& file, const std::string& path) const {
  const uint64_t bytes = manifest_.shards[shard].bytes;
  SafetensorsLimits limits;
  limits.header_bytes = kMostShardHeaderBytes;
  uint64_t first = 0;
  if (bytes >= 8) read_exact(*fs_, file.get(), &first, 8, 0, path);
  std::string json(static_cast<size_t>(parse_header_length(&first, bytes, path, limits)), '\0');
  read_exact(*fs_, file.get(), json.data(), json.size(), 8, path);
  const SafetensorsHeader header = parse_safetensors_header(json, bytes, path, limits);
  const auto label = header.metadata.find("heddle");
  const std::string expected = shard_label(shard, manifest_.shards.size(), manifest_.step, manifest_.incarnation);
  if (label == header.metadata.end() || label->second != expected) {
    refuse(path, concat("calls itself \"", label == header.metadata.end() ? "" : label->second, "\", not \"", expected,
                        "\"; it is another checkpoint's file"));
  }
  // Both are sorted by place, so the manifest's pieces must be the header's tensors, one by one.
  const auto [first_piece, end_piece] =
      std::equal_range(extents_.begin(), extents_.end(), Extent{shard}, [](const Extent& a, const Extent& b) { return a.shard < b.shard; });
  bool equal = static_cast<size_t>(end_piece - first_piece) == header.tensors.size();
  for (size_t i = 0; equal && i < header.tensors.size(); ++i) {
    const FileTensor& t = header.tensors[i];
    const Extent& extent = first_piece[static_cast<std::ptrdiff_t>(i)];
    const SavedTensor& saved = manifest_.tensors[extent.tensor];
    equal = t.begin == extent.begin && t.end - t.begin == extent.bytes && t.type == file_type(saved.dtype) &&
            t.shape.size() == saved.pieces[extent.piece].box.size();
    if (extent.bytes > 0) equal = equal && std::string_view(t.name).substr(0, t.name.find('#')) == saved.name;
  }
  if (!equal) refuse(path, "its header does not list the pieces the manifest says it holds");
}

void CheckpointReader::verify(uint64_t shard) const {
  std::string path;
  const Handle file = open_shard(shard, path);
  const SavedShard& saved = manifest_.shards[shard];
  std::vector<std::byte> block(static_cast<size_t>(std::min(kBlockBytes, saved.bytes)));
  Sha256 hash;
  std::string damage;
  for (uint64_t i = 0; i < saved.crc32c.size(); ++i) {
    const uint64_t begin = i * kBlockBytes, size = std::min(kBlockBytes, saved.bytes - begin);
    read_exact(*fs_, file.get(), block.data(), size, begin, path);
    if (damage.empty() && crc32c(block.data(), size) != saved.crc32c[i])
      damage = concat(" in block ", i, " (bytes ", begin, " to ", begin + size, ")");
    hash.update(block.data(), size);
  }
  if (hash.finish() != saved.sha256 || !damage.empty()) {
    refuse(path, concat("does not match the hash it was saved with; it has been changed or damaged", damage));
  }
  check_header(shard, file, path);
}

void CheckpointReader::read(std::span<const Wanted> wanted) const {
  struct Task {
    const Wanted* want;
    const SavedPiece* piece;
    Box overlap;
  };
  std::vector<Task> tasks;
  Box overlap;
  for (const Wanted& w : wanted) {
    HEDDLE_CHECK(is_inside(w.box, w.tensor->global), "checkpoint", "tensor \"", w.tensor->name, "\": box ", box_text(w.box), " leaves its shape");
    for (const SavedPiece& piece : w.tensor->pieces) {
      if (intersect(w.box, piece.box, overlap)) tasks.push_back({&w, &piece, overlap});
    }
  }
  std::sort(tasks.begin(), tasks.end(), [](const Task& a, const Task& b) {
    return a.piece->shard != b.piece->shard ? a.piece->shard < b.piece->shard : a.piece->offset < b.piece->offset;
  });
  BlockReader blocks(*fs_);
  Handle file;
  uint64_t open = UINT64_MAX;
  for (const Task& task : tasks) {
    if (task.piece->shard != open) {
      open = task.piece->shard;
      std::string path;
      file = open_shard(open, path);
      blocks.open(file, manifest_.shards[open], path);
    }
    const auto element = static_cast<uint64_t>(size_of(task.want->tensor->dtype));
    for_each_run(task.overlap, task.piece->box, task.want->box, [&](int64_t from, int64_t to, int64_t count) {
      blocks.read(task.piece->offset + static_cast<uint64_t>(from) * element, task.want->to + static_cast<uint64_t>(to) * element,
                  static_cast<uint64_t>(count) * element);
    });
  }
}

}  // namespace heddle
