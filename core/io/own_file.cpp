#include "core/io/own_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <system_error>
#include <utility>
#include <vector>

#include "core/io/file_system.h"
#include "kernels/api/printable.h"

namespace heddle {
namespace {

[[noreturn]] void refuse(const std::string& path, const std::string& what) {
  fail("open", concat(path, ": ", what, "; heddle keeps a regular file of its own here: move it away"), ExitCode::bad_data);
}

// A handle of a regular file, or -ENOENT. O_NONBLOCK: opening a FIFO must not wait; it means nothing for a regular file.
int open_own(const std::string& path, int flags) {
  const int handle = ::open(path.c_str(), flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  const int error = handle < 0 ? errno : 0;
  if (error == ENOENT) return -ENOENT;
  if (error == ELOOP) refuse(path, "is a symbolic link");
  if (error == ENXIO || error == EISDIR) refuse(path, "is not a regular file");
  if (error != 0) fail_io("open", "open", path, -error);
  struct stat info {};
  if (::fstat(handle, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(handle);
    refuse(path, "is not a regular file");
  }
  return handle;
}

// A file with a second name, as `cp -al` makes of a whole run, is another run's as well: from here on the name is of a copy.
void own_alone(const std::string& path) {
  const std::string copy = concat(path, ".tmp", ::getpid());
  FileSystem& disk = real_file_system();
  std::error_code failed;
  ::unlink(copy.c_str());
  std::filesystem::copy_file(path, copy, failed);
  int r = -failed.value();
  if (r == 0) {
    const Handle handle(disk, disk.open_file(FileSystem::kHere, copy.c_str()));
    r = handle ? disk.sync(handle.get()) : handle.get();
  }
  if (r == 0) r = disk.rename(FileSystem::kHere, copy.c_str(), FileSystem::kHere, path.c_str());
  if (r < 0) {
    ::unlink(copy.c_str());
    fail_io("log", "copy", path, r);
  }
  const size_t slash = path.rfind('/');
  const Handle directory(disk, disk.open_root(slash == path.npos ? "." : path.substr(0, slash + 1).c_str()));
  if (directory) disk.sync(directory.get());
}

}  // namespace

std::string foreign_kind(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) {
    if (errno != ENOENT) fail_io("open", "examine", path, -errno);
    return {};
  }
  if (S_ISLNK(info.st_mode)) return "is a symbolic link";
  return S_ISREG(info.st_mode) ? "" : "is not a regular file";
}

std::optional<std::string> read_own_file(const std::string& path, size_t bytes) {
  const int opened = open_own(path, O_RDONLY);
  if (opened < 0) return std::nullopt;
  const Handle handle(real_file_system(), opened);
  std::string text;
  std::vector<char> buffer(size_t{1} << 16);
  while (text.size() < bytes) {
    const ssize_t n = ::read(opened, buffer.data(), std::min(buffer.size(), bytes - text.size()));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_io("read", "read", path, -errno);
    if (n == 0) break;
    text.append(buffer.data(), static_cast<size_t>(n));
  }
  return text;
}

AppendLog::AppendLog(std::string path, Open how) : path_(std::move(path)) {
  const auto open = [&] { return open_own(path_, O_RDWR | O_APPEND); };
  if (how == Open::or_create) handle_ = open();
  if (handle_ < 0) {
    FileSystem& disk = real_file_system();
    const int made = disk.create_file(FileSystem::kHere, path_.c_str());
    if (made < 0) fail_io("log", "create", path_, made);
    disk.close(made);
    handle_ = open();
  }
  struct stat info {};
  if (handle_ >= 0 && ::fstat(handle_, &info) == 0 && info.st_nlink > 1) {
    ::close(handle_);
    own_alone(path_);
    handle_ = open();
  }
  if (handle_ < 0) fail_io("log", "open", path_, handle_);
}

AppendLog::~AppendLog() {
  ::close(handle_);
}

int AppendLog::write(std::string_view record) {
  if (torn_from_) {
    if (::ftruncate(handle_, static_cast<off_t>(*torn_from_)) != 0) return -errno;
    torn_from_.reset();
  }
  const uint64_t begin = size();
  for (std::string_view left = record; !left.empty();) {
    const ssize_t n = ::write(handle_, left.data(), left.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      const int error = n == 0 ? ENOSPC : errno;
      if (left.size() < record.size() && ::ftruncate(handle_, static_cast<off_t>(begin)) != 0) torn_from_ = begin;
      return -error;
    }
    left.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

bool AppendLog::append(std::string_view record) {
  if (const int r = write(record); r < 0) {
    ++lost_;
    if (lost_in_a_row_++ == 0) {
      std::fprintf(stderr, "heddle: cannot write %s: %s%s; the run goes on without it\n", printable(path_).c_str(),
                   std::system_category().message(-r).c_str(), std::string(cure_of(-r)).c_str());
    }
    return false;
  }
  if (const uint64_t gap = std::exchange(lost_in_a_row_, 0); gap > 0) {
    std::fprintf(stderr, "heddle: %s is written again, %llu records are missing\n", printable(path_).c_str(), static_cast<unsigned long long>(gap));
  }
  return true;
}

void AppendLog::append_durably(std::string_view record) {
  if (const int r = write(record); r < 0) fail_io("log", "write", path_, r);
  if (::fsync(handle_) != 0) fail_io("log", "sync", path_, -errno);
}

uint64_t AppendLog::size() const {
  struct stat info {};
  if (::fstat(handle_, &info) != 0) fail_io("log", "examine", path_, -errno);
  return static_cast<uint64_t>(info.st_size);
}

size_t AppendLog::read(uint64_t offset, char* into, size_t bytes) const {
  for (;;) {
    const ssize_t n = ::pread(handle_, into, bytes, static_cast<off_t>(offset));
    if (n >= 0) return static_cast<size_t>(n);
    if (errno != EINTR) fail_io("log", "read", path_, -errno);
  }
}

void AppendLog::cut(uint64_t bytes) {
  torn_from_.reset();
  if (size() == bytes) return;
  if (::ftruncate(handle_, static_cast<off_t>(bytes)) != 0) fail_io("log", "truncate", path_, -errno);
  if (::fsync(handle_) != 0) fail_io("log", "sync", path_, -errno);
}

}  // namespace heddle
