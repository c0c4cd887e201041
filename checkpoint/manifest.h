// MANIFEST: the one small file that makes a directory of shards a checkpoint.
//
// One JSON object, a newline, then the line "sha256 <64 hex digits>\n" over every byte before that line. It holds everything needed to read the
// shards and to notice any change in them; file names are rebuilt from numbers and never read from it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/boxes.h"
#include "core/io/sha256.h"

namespace heddle {

inline constexpr uint64_t kBlockBytes = uint64_t{1} << 20;  // the unit of CRC-32C
inline constexpr uint64_t kMostManifestBytes = uint64_t{16} << 20;
inline constexpr uint64_t kMostShards = 65536;

// Steps and incarnations are below this: every number in a name or a manifest fits a signed one.
inline constexpr uint64_t kNumberEnd = uint64_t{1} << 62;
inline constexpr size_t kSelfHashBytes = 7 + 64 + 1;  // "sha256 ", digits, newline

inline uint64_t block_count(uint64_t bytes) {
  return bytes / kBlockBytes + (bytes % kBlockBytes != 0);
}

struct SavedPiece {
  uint64_t shard = 0;
  uint64_t offset = 0;  // bytes, from the start of the shard file
  Box box;
};

struct SavedTensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> global;
  std::vector<SavedPiece> pieces;  // tile the global shape exactly

  int64_t bytes() const { return volume(whole_box(global)) * size_of(dtype); }
};

struct SavedShard {
  uint64_t bytes = 0;
  Sha256Digest sha256{};
  std::vector<uint32_t> crc32c;  // of each block of the file
};

struct Manifest {
  uint64_t step = 0, incarnation = 0;
  uint64_t fold = 0;  // see fold.h: the logical content, independent of slicing
  std::string environment, config, scalars;
  std::vector<SavedShard> shards;
  std::vector<SavedTensor> tensors;  // by name
  Sha256Digest self{};               // the trailing hash

  const SavedTensor* find(std::string_view name) const;
};

// Checks the hash, then every number against the others: sizes, offsets, boxes, coverage, names. `place` is the file's name in messages.
// Throws Error(bad_data). Allocates at most a small multiple of the text.
Manifest parse_manifest(std::string_view text, std::string_view place);

// Names of tensors: letters, digits and _ . - / only, 1 to 256 of them.
bool is_tensor_name(std::string_view name);

// The JSON of one tensor, `{"name":...,"pieces":[...]}`; constant over a run, so it is written once.
void append_tensor(std::string& out, const SavedTensor& tensor);

// The parts of a manifest that change from save to save. Nothing is allocated while `out` has the capacity manifest_capacity() says.
struct ManifestParts {
  uint64_t step = 0, incarnation = 0, fold = 0;
  std::string_view environment, config, scalars;
  const std::vector<SavedShard>* shards = nullptr;
  std::string_view tensors;  // append_tensor for each, joined by commas
};
size_t manifest_capacity(const ManifestParts& parts);
void write_manifest(const ManifestParts& parts, Sha256& hash, std::string& out);

}  // namespace heddle
