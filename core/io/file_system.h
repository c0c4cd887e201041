// The one door to the disk for everything that must survive a crash.
//
// FileSystem has one virtual per system call, so that a test can stand in for the disk: fail the n-th call, die at it, or record the trace from
// which states after a power loss are built. The primitives return a handle, a count or 0, and -errno on failure, exactly once per call; loops,
// checks and error texts live in the free functions below, which throw Error(io).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/api/check.h"

namespace heddle {

struct FileInfo {
  uint64_t size = 0;  // bytes
  bool regular = false;
  bool directory = false;
  uint64_t inode = 0;
  uint64_t links = 1;  // names that it has
};

class FileSystem {
 public:
  static constexpr int kHere = -100;  // the directory of relative paths (AT_FDCWD)

  virtual ~FileSystem() = default;

  // What is created has the modes the umask leaves: who may read a run is the user's choice. All of heddle makes its files here.
  // `name` is one path component below directory handle `at`; only the first two follow symbolic links.
  virtual int open_root(const char* path) = 0;         // a directory the user named
  virtual int open_linked_file(const char* path) = 0;  // a file the user named, for reading
  virtual int open_directory(int at, const char* name) = 0;
  virtual int open_file(int at, const char* name) = 0;    // for reading; does not wait on a FIFO
  virtual int create_file(int at, const char* name) = 0;  // exclusive, for writing
  virtual int open_lock(int at, const char* name) = 0;    // created when absent
  virtual int make_directory(int at, const char* name) = 0;
  virtual int lock(int handle) = 0;                                                        // exclusive, does not wait
  virtual int allocate(int handle, uint64_t size) = 0;                                     // reserves and extends to `size`
  virtual int64_t write(int handle, const void* from, size_t bytes, uint64_t offset) = 0;  // may be short
  virtual int64_t read(int handle, void* to, size_t bytes, uint64_t offset) const = 0;     // may be short; 0 at the end
  virtual int sync(int handle) = 0;                                                        // data and metadata, or a directory's entries
  virtual int close(int handle) = 0;
  virtual int info(int handle, FileInfo& out) const = 0;
  virtual int exists(int at, const char* name) const = 0;                   // 0, or -ENOENT
  virtual int list(int handle, std::vector<std::string>& names) const = 0;  // without . and .., unordered
  virtual int rename(int from_at, const char* from, int to_at, const char* to) = 0;
  virtual int unlink(int at, const char* name) = 0;
  virtual int remove_directory(int at, const char* name) = 0;
  virtual int drop_cache(int handle) = 0;  // the next read comes from the device
};

// POSIX calls, nothing added.
FileSystem& real_file_system();

// An open handle, closed at the end of its scope. Where close may report a write error, call close() and look.
class Handle {
 public:
  Handle() = default;
  Handle(FileSystem& fs, int handle) : fs_(&fs), handle_(handle) {}
  Handle(Handle&& other) noexcept : fs_(other.fs_), handle_(other.handle_) { other.handle_ = -1; }
  Handle& operator=(Handle&& other) noexcept;
  ~Handle() { close(); }

  explicit operator bool() const { return handle_ >= 0; }
  int get() const { return handle_; }
  int close();  // 0 or -errno; a second call does nothing

 private:
  FileSystem* fs_ = nullptr;
  int handle_ = -1;
};

// What to do about an errno, as the end of a sentence: "; free space ..."; "" where nothing is known.
std::string_view cure_of(int error);

// Throws Error(io): "[op] cannot <what> PATH: No space left on device", with what to do about it where that is known.
[[noreturn]] void fail_io(std::string_view op, std::string_view what, std::string_view path, int negative_errno, const char* file = __builtin_FILE(),
                          int line = __builtin_LINE());

// Writes all of it, through short writes and EINTR.
void write_all(FileSystem& fs, int handle, const void* from, size_t bytes, uint64_t offset, std::string_view path);

// Reads exactly `bytes`. An earlier end of the file and EIO (the medium lost the data) are Error(bad_data), anything else Error(io).
void read_exact(const FileSystem& fs, int handle, void* to, size_t bytes, uint64_t offset, std::string_view path);

// Opens a regular file. Anything else by that name (symbolic link, FIFO, device, directory) is Error(bad_data).
Handle open_regular(FileSystem& fs, int at, const char* name, std::string_view path, FileInfo* info = nullptr);

// The whole file, at most `limit` bytes.
std::string read_small_file(FileSystem& fs, int at, const char* name, std::string_view path, size_t limit);

// Content appears under `name` whole or not at all and stays after a power cut: `name`.tmp, fsync, rename, fsync of the directory.
// A `name`.tmp left by a crash is replaced.
void write_file_atomically(FileSystem& fs, int at, const char* name, std::string_view content, std::string_view path);

// Makes `path` with its parents, each durable before the next.
void make_directories(FileSystem& fs, const std::string& path);

}  // namespace heddle
