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

// A regular file read at any place, by any thread. It is never mapped, so a file that is cut short under a running job is an error that names the
// offset and not a signal, and any number of files can be in use: of all that live only some are open at a time (at most 256, and a quarter of what
// the process may open), the others are opened again when they are read. Replacing an open one by rename changes nothing.
class SharedFile {
 public:
  explicit SharedFile(const std::string& path);
  SharedFile(SharedFile&&) noexcept;
  SharedFile& operator=(SharedFile&&) noexcept;
  ~SharedFile();
  uint64_t size() const;  // when it was opened first
  // Error(bad_data) when the file is no longer the one that was opened first, or ends before.
  void read(uint64_t offset, void* to, size_t bytes) const;
  std::string sha256() const;  // of the whole file, 64 lower-case digits

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
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
// holds, and so are the leading folders. No match (the message ends with `cure`), or a directory: Error(usage).
std::vector<std::string> expand_glob(const std::string& pattern,
                                     const std::string& cure = "quote the pattern, and write shards with `heddle tokenize`");

std::string base_name(const std::string& path);       // "a/b.bin" -> "b.bin"
std::string directory_name(const std::string& path);  // "a/b.bin" -> "a", "b.bin" -> "."

}  // namespace heddle
