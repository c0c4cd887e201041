// Files as the data library opens and writes them. Internal to data/ and its tests.
//
// Only regular files are read (a FIFO or device would block or never end); opening never waits. Symbolic links are followed on reading,
// because data sets are often linked into place, and never on writing. Errors are Error(io) for what the system refuses and
// Error(bad_data) for what a file contains; each names the file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace heddle {

// A whole regular file mapped read-only. A file that another process cuts short while it is mapped ends this process with SIGBUS; replacing
// it by rename is safe.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  ~MappedFile();
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }
  std::string_view text() const { return {reinterpret_cast<const char*>(data_), size_}; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A regular file read from its beginning in pieces.
class FileReader {
 public:
  explicit FileReader(const std::string& path);
  ~FileReader();
  FileReader(const FileReader&) = delete;
  FileReader& operator=(const FileReader&) = delete;
  size_t read(char* to, size_t bytes);  // bytes read; 0 at the end

 private:
  std::string path_;
  int descriptor_ = -1;
};

// A file that did not exist: created exclusively, removed again unless close() was reached. close() flushes it to the disk.
class FileWriter {
 public:
  explicit FileWriter(std::string path);
  ~FileWriter();
  FileWriter(const FileWriter&) = delete;
  FileWriter& operator=(const FileWriter&) = delete;
  void write(const void* from, size_t bytes);                      // appends
  void write_at(uint64_t offset, const void* from, size_t bytes);  // overwrites
  void close();

 private:
  std::string path_;
  int descriptor_ = -1;
};

// 64 lower-case digits.
std::string sha256_hex(std::string_view bytes);

// The content of a regular file of at most `max_bytes`.
std::string read_small_file(const std::string& path, size_t max_bytes);

// Puts `content` at `path`: temporary file in the same directory, flushed, renamed over it.
void replace_file(const std::string& path, std::string_view content);

void rename_file(const std::string& from, const std::string& to);
void sync_directory(const std::string& path);

// The paths that match a shell pattern (glob(3)), in byte order whatever the locale is. A file of this very name is itself, whatever signs its name
// holds, and so are the leading folders. No match, or a directory: Error(usage).
std::vector<std::string> expand_glob(const std::string& pattern);

std::string base_name(const std::string& path);       // "a/b.bin" -> "b.bin"
std::string directory_name(const std::string& path);  // "a/b.bin" -> "a", "b.bin" -> "."

}  // namespace heddle
