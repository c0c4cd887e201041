#include "data/file.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "core/io/sha256.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

[[noreturn]] void fail_io(const std::string& path, const char* what, int error) {
  fail("file", concat(path, ": cannot ", what, ": ", std::strerror(error)), ExitCode::io);
}

// Opens a regular file; O_NONBLOCK so that a FIFO without a writer is refused instead of waited for.
int open_regular(const std::string& path, uint64_t* size) {
  if (path.find('\0') != std::string::npos) fail("file", "a file name holds a zero byte", ExitCode::usage);
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (descriptor < 0) fail_io(path, "open", errno);
  struct stat status;
  if (::fstat(descriptor, &status) != 0) {
    const int error = errno;
    ::close(descriptor);
    fail_io(path, "stat", error);
  }
  if (!S_ISREG(status.st_mode)) {
    ::close(descriptor);
    fail("file", concat(path, ": not a regular file (", S_ISDIR(status.st_mode) ? "a directory" : "a pipe, socket or device", ")"), ExitCode::usage);
  }
  if (size) *size = static_cast<uint64_t>(status.st_size);
  return descriptor;
}

// The leading folders of a pattern that are there by these very names, protected from being read as patterns: "a[1]/*.bin" beside a folder "a[1]".
std::string quote_existing(const std::string& pattern) {
  size_t literal = 0;
  struct stat status;
  for (size_t slash = pattern.find('/', 1); slash != std::string::npos; slash = pattern.find('/', slash + 1)) {
    if (::stat(pattern.substr(0, slash).c_str(), &status) != 0) break;
    literal = slash;
  }
  std::string quoted;
  for (size_t i = 0; i < literal; ++i) {
    if (pattern[i] != '/') quoted += '\\';
    quoted += pattern[i];
  }
  return quoted + pattern.substr(literal);
}

// glob()'s question about a folder it cannot read: a missing one just matches nothing.
int may_go_on(const char*, int error) {
  return error != ENOENT && error != ENOTDIR;
}

}  // namespace

MappedFile::MappedFile(const std::string& path) {
  uint64_t size = 0;
  const int descriptor = open_regular(path, &size);
  if (size > 0) {
    void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (address == MAP_FAILED) {
      const int error = errno;
      ::close(descriptor);
      fail_io(path, "map", error);
    }
    data_ = static_cast<const std::byte*>(address);
    size_ = size;
  }
  ::close(descriptor);
}

MappedFile::MappedFile(MappedFile&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

FileReader::FileReader(const std::string& path) : path_(path), descriptor_(open_regular(path, nullptr)) {
  ::posix_fadvise(descriptor_, 0, 0, POSIX_FADV_SEQUENTIAL);
}

FileReader::~FileReader() {
  ::close(descriptor_);
}

size_t FileReader::read(char* to, size_t bytes) {
  for (;;) {
    const ssize_t got = ::read(descriptor_, to, bytes);
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) fail_io(path_, "read", errno);
  }
}

FileWriter::FileWriter(std::string path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
  if (descriptor_ < 0) fail_io(path_, "create", errno);
}

FileWriter::~FileWriter() {
  if (descriptor_ < 0) return;
  ::close(descriptor_);
  ::unlink(path_.c_str());
}

void FileWriter::write(const void* from, size_t bytes) {
  const char* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t put = ::write(descriptor_, at, bytes);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_io(path_, "write", errno);
    at += put;
    bytes -= static_cast<size_t>(put);
  }
}

void FileWriter::write_at(uint64_t offset, const void* from, size_t bytes) {
  const char* at = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t put = ::pwrite(descriptor_, at, bytes, static_cast<off_t>(offset));
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) fail_io(path_, "write", errno);
    at += put;
    offset += static_cast<uint64_t>(put);
    bytes -= static_cast<size_t>(put);
  }
}

void FileWriter::close() {
  // After a failed fsync the kernel may have dropped the pages: this file is lost, and the destructor removes it.
  if (::fsync(descriptor_) != 0) fail_io(path_, "flush", errno);
  const int closed = ::close(std::exchange(descriptor_, -1));
  if (closed != 0) {
    const int error = errno;
    ::unlink(path_.c_str());
    fail_io(path_, "close", error);
  }
}

std::string sha256_hex(std::string_view bytes) {
  return hex(sha256(bytes));
}

std::string read_small_file(const std::string& path, size_t max_bytes) {
  FileReader file(path);
  std::string content;
  char buffer[65536];
  while (const size_t got = file.read(buffer, sizeof buffer)) {
    content.append(buffer, got);
    if (content.size() > max_bytes) fail("file", concat(path, ": larger than the ", max_bytes, " bytes accepted here"), ExitCode::bad_data);
  }
  return content;
}

void replace_file(const std::string& path, std::string_view content) {
  const std::string temporary = concat(path, ".tmp", ::getpid());
  ::unlink(temporary.c_str());
  FileWriter file(temporary);
  file.write(content.data(), content.size());
  file.close();
  rename_file(temporary, path);
  sync_directory(directory_name(path));
}

void rename_file(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) != 0) fail_io(from, concat("rename to ", to).c_str(), errno);
}

void sync_directory(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) fail_io(path, "open", errno);
  const int synced = ::fsync(descriptor);
  const int error = errno;
  ::close(descriptor);
  if (synced != 0 && error != EINVAL) fail_io(path, "flush", error);  // EINVAL: a file system without directory fsync
}

std::vector<std::string> expand_glob(const std::string& pattern) {
  if (pattern.find('\0') != std::string::npos) fail("file", "a file name holds a zero byte", ExitCode::usage);
  struct stat status;
  if (::stat(pattern.c_str(), &status) == 0) {
    if (S_ISDIR(status.st_mode)) {
      fail("file", concat(pattern, ": a directory; name the files in it, as in '", pattern, pattern.back() == '/' ? "" : "/", "*.bin'"),
           ExitCode::usage);
    }
    return {pattern};
  }
  glob_t found{};
  const int result = ::glob(quote_existing(pattern).c_str(), GLOB_NOSORT, may_go_on, &found);
  std::vector<std::string> paths;
  if (result == 0) paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  ::globfree(&found);
  if (result == GLOB_NOSPACE) throw std::bad_alloc();
  if (result == GLOB_ABORTED) fail("file", concat("'", pattern, "': cannot read a directory of this pattern"), ExitCode::io);
  if (paths.empty()) {
    fail("file", concat("no file matches '", pattern, "'; quote the pattern, and write shards with `heddle tokenize`"), ExitCode::usage);
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

std::string base_name(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? path : path.substr(slash + 1);
}

std::string directory_name(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : slash == 0 ? "/" : path.substr(0, slash);
}

}  // namespace heddle
