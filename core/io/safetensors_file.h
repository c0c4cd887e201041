// safetensors files: read with every check of the format, written in the reference order.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/io/file_system.h"
#include "core/io/safetensors.h"

namespace heddle {

// An open file whose header has passed all checks. Reading is positional and needs no state, so threads may share one.
class SafetensorsFile {
 public:
  // `path` may be a link (model caches are full of them). Throws Error(io) or Error(bad_data).
  explicit SafetensorsFile(const std::string& path, const SafetensorsLimits& = {}, FileSystem& = real_file_system());

  const SafetensorsHeader& header() const { return header_; }
  const std::string& path() const { return path_; }

  // The bytes of `tensor` as they lie in the file, into `to` (tensor.end - tensor.begin bytes).
  void read(const FileTensor& tensor, void* to) const;
  // `bytes` from `offset` bytes into the tensor.
  void read(const FileTensor& tensor, uint64_t offset, void* to, size_t bytes) const;

 private:
  FileSystem* fs_;
  std::string path_;
  Handle handle_;
  SafetensorsHeader header_;
};

using NamedViews = std::vector<std::pair<std::string, View>>;

// Writes dense views on the CPU as one file: temporary, fsync, rename, so that `path` is the whole file or what it was before.
// Metadata without a "format" gets {"format":"pt"}, which some readers insist on.
void save_safetensors(const std::string& path, const NamedViews& tensors, std::map<std::string, std::string> metadata = {},
                      FileSystem& = real_file_system());

// Fills dense views on the CPU. Strict: missing, unexpected and mis-shaped names are listed all at once (Error(bad_data)).
// Returns the file's metadata.
std::map<std::string, std::string> load_safetensors(const std::string& path, const NamedViews& into, FileSystem& = real_file_system());

}  // namespace heddle
