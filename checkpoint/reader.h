// Reading one checkpoint: any box of any tensor, whatever slices it was saved in.
#pragma once

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "checkpoint/run_directory.h"
#include "core/io/file_system.h"

namespace heddle {

struct Wanted {
  const SavedTensor* tensor = nullptr;
  Box box;                  // inside the tensor's global shape
  std::byte* to = nullptr;  // dense, volume(box) elements
};

class CheckpointReader {
 public:
  // Opens directory `name` below handle `at` and checks everything but the content of the shards: the manifest (see parse_manifest), that it belongs
  // to this directory's step and incarnation, and that exactly its files are there, regular, of the right sizes. `path` names it in messages.
  // Error(bad_data) for anything wrong with it, Error(io) when that cannot be found out.
  CheckpointReader(FileSystem& fs, int at, const char* name, std::string path, std::optional<CheckpointId> expected);

  const Manifest& manifest() const { return manifest_; }
  const std::string& path() const { return path_; }

  // Reads all of a shard: SHA-256, CRC-32C of each block (to name the damage), and that its own header agrees with the manifest. Error(bad_data).
  void verify(uint64_t shard) const;

  // Fills every wanted box, in file order. The CRC-32C of each block touched is checked.
  void read(std::span<const Wanted> wanted) const;

 private:
  // A piece of a tensor where it lies in a shard.
  struct Extent {
    uint64_t shard = 0, begin = 0, bytes = 0;
    size_t tensor = 0, piece = 0;  // in the manifest
  };
  Handle open_shard(uint64_t shard, std::string& path) const;
  void check_header(uint64_t shard, const Handle& file, const std::string& path) const;

  FileSystem* fs_;
  std::string path_;
  Handle directory_;
  Manifest manifest_;
  std::vector<Extent> extents_;  // of all pieces, by shard and place
};

}  // namespace heddle
