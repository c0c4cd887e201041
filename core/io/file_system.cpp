#include "core/io/file_system.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

namespace heddle {
namespace {

int result(int value) {
  return value < 0 ? -errno : value;
}
int64_t result64(ssize_t value) {
  return value < 0 ? -static_cast<int64_t>(errno) : value;
}

class RealFileSystem final : public FileSystem {
 public:
  int open_root(const char* path) override { return result(::open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)); }
  int open_linked_file(const char* path) override { return result(::open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)); }
  int open_directory(int at, const char* name) override { return result(::openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)); }
  // O_NONBLOCK: opening a FIFO must not wait for a writer. It means nothing for a regular file.
  int open_file(int at, const char* name) override { return result(::openat(at, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)); }
  int create_file(int at, const char* name) override {
    return result(::openat(at, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  }
  int open_lock(int at, const char* name) override {
    return result(::openat(at, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666));
  }
  int make_directory(int at, const char* name) override { return result(::mkdirat(at, name, 0777)); }
  int lock(int handle) override { return result(::flock(handle, LOCK_EX | LOCK_NB)); }
  int allocate(int handle, uint64_t size) override {
    // fallocate itself, not posix_fallocate: on a file system without it, libc would write every block twice.
    const int r = result(::fallocate(handle, 0, 0, static_cast<off_t>(size)));
    return r == -EOPNOTSUPP || r == -ENOSYS ? 0 : r;
  }
  int64_t write(int handle, const void* from, size_t bytes, uint64_t offset) override {
    return result64(::pwrite(handle, from, bytes, static_cast<off_t>(offset)));
  }
  int64_t read(int handle, void* to, size_t bytes, uint64_t offset) const override {
    return result64(::pread(handle, to, bytes, static_cast<off_t>(offset)));
  }
  int sync(int handle) override { return result(::fsync(handle)); }
  int close(int handle) override { return result(::close(handle)); }
  int info(int handle, FileInfo& out) const override {
    struct stat s {};
    if (const int r = result(::fstat(handle, &s)); r < 0) return r;
    out = {static_cast<uint64_t>(s.st_size), S_ISREG(s.st_mode), S_ISDIR(s.st_mode), s.st_ino, s.st_nlink};
    return 0;
  }
  int exists(int at, const char* name) const override { return result(::faccessat(at, name, F_OK, AT_SYMLINK_NOFOLLOW)); }
  int list(int handle, std::vector<std::string>& names) const override {
    names.clear();
    const int copy = result(::openat(handle, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));  // its own position, and closedir closes it
    if (copy < 0) return copy;
    DIR* const directory = ::fdopendir(copy);
    if (directory == nullptr) {
      const int error = -errno;
      ::close(copy);
      return error;
    }
    struct Closer {
      DIR* d;
      ~Closer() { ::closedir(d); }
    } closer{directory};
    errno = 0;
    while (const dirent* entry = ::readdir(directory)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    return -errno;
  }
  int rename(int from_at, const char* from, int to_at, const char* to) override { return result(::renameat(from_at, from, to_at, to)); }
  int unlink(int at, const char* name) override { return result(::unlinkat(at, name, 0)); }
  int remove_directory(int at, const char* name) override { return result(::unlinkat(at, name, AT_REMOVEDIR)); }
  int drop_cache(int handle) override { return -::posix_fadvise(handle, 0, 0, POSIX_FADV_DONTNEED); }
};

static_assert(FileSystem::kHere == AT_FDCWD);

}  // namespace

FileSystem& real_file_system() {
  static RealFileSystem instance;
  return instance;
}

Handle& Handle::operator=(Handle&& other) noexcept {
  if (this != &other) {
    close();
    fs_ = other.fs_;
    handle_ = other.handle_;
    other.handle_ = -1;
  }
  return *this;
}

int Handle::close() {
  if (handle_ < 0) return 0;
  const int h = handle_;
  handle_ = -1;
  return fs_->close(h);
}

std::string_view cure_of(int error) {
  switch (error) {
    case ENOSPC: return "; free space on that file system or choose another --out";
    case EDQUOT: return "; the quota is used up: delete old runs or choose another --out";
    case EFBIG: return "; a limit on the size of files stands in the way: raise `ulimit -f`";
    case EROFS:
    case EACCES:
    case EPERM: return "; check the owner and mode of that directory";
    case EMFILE:
    case ENFILE: return "; too many open files: raise `ulimit -n`";
    case EIO: return "; the device reports an error: see the kernel log before trusting this disk";
    case ESTALE: return "; the network file system lost the handle: start the job again";
    default: return "";
  }
}

void fail_io(std::string_view op, std::string_view what, std::string_view path, int negative_errno, const char* file, int line) {
  const int error = -negative_errno;
  fail(op, concat("cannot ", what, " ", path, ": ", std::system_category().message(error), cure_of(error)), ExitCode::io, file, line);
}

void write_all(FileSystem& fs, int handle, const void* from, size_t bytes, uint64_t offset, std::string_view path) {
  const auto* data = static_cast<const std::byte*>(from);
  while (bytes > 0) {
    const int64_t n = fs.write(handle, data, bytes, offset);
    if (n == -EINTR) continue;
    if (n < 0) fail_io("write", "write to", path, static_cast<int>(n));
    if (n == 0) fail_io("write", "write to", path, -ENOSPC);  // a device that takes nothing and says nothing is full
    data += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<size_t>(n);
  }
}

void read_exact(const FileSystem& fs, int handle, void* to, size_t bytes, uint64_t offset, std::string_view path) {
  auto* data = static_cast<std::byte*>(to);
  while (bytes > 0) {
    const int64_t n = fs.read(handle, data, bytes, offset);
    if (n == -EINTR) continue;
    if (n == -EIO) fail("read", concat(path, ": unreadable at byte ", offset, ": the device reports an I/O error there"), ExitCode::bad_data);
    if (n < 0) fail_io("read", "read", path, static_cast<int>(n));
    if (n == 0) fail("read", concat(path, ": ends at byte ", offset, ", ", bytes, " more were expected; the file is truncated"), ExitCode::bad_data);
    data += n;
    offset += static_cast<uint64_t>(n);
    bytes -= static_cast<size_t>(n);
  }
}

Handle open_regular(FileSystem& fs, int at, const char* name, std::string_view path, FileInfo* info) {
  const int h = fs.open_file(at, name);
  if (h == -ELOOP) fail("open", concat(path, ": is a symbolic link; a regular file is required here"), ExitCode::bad_data);
  if (h == -ENOENT) fail("open", concat(path, ": is missing"), ExitCode::bad_data);
  if (h == -ENXIO) fail("open", concat(path, ": is a socket or device; a regular file is required here"), ExitCode::bad_data);
  if (h < 0) fail_io("open", "open", path, h);
  Handle handle(fs, h);
  FileInfo found;
  if (const int r = fs.info(h, found); r < 0) fail_io("open", "examine", path, r);
  if (!found.regular) fail("open", concat(path, ": is not a regular file"), ExitCode::bad_data);
  if (info != nullptr) *info = found;
  return handle;
}

std::string read_small_file(FileSystem& fs, int at, const char* name, std::string_view path, size_t limit) {
  FileInfo info;
  const Handle handle = open_regular(fs, at, name, path, &info);
  if (info.size > limit) fail("read", concat(path, ": has ", info.size, " bytes, at most ", limit, " are accepted"), ExitCode::bad_data);
  std::string text(static_cast<size_t>(info.size), '\0');
  read_exact(fs, handle.get(), text.data(), text.size(), 0, path);
  return text;
}

void write_file_atomically(FileSystem& fs, int at, const char* name, std::string_view content, std::string_view path) {
  char temporary[256];
  const int length = std::snprintf(temporary, sizeof temporary, "%s.tmp", name);
  if (length < 0 || length >= static_cast<int>(sizeof temporary)) fail_io("write", "name the temporary of", path, -ENAMETOOLONG);
  int h = fs.create_file(at, temporary);
  if (h == -EEXIST) {
    fs.unlink(at, temporary);
    h = fs.create_file(at, temporary);
  }
  if (h < 0) fail_io("write", "create the temporary of", path, h);
  Handle handle(fs, h);
  try {
    write_all(fs, h, content.data(), content.size(), 0, path);
    if (const int r = fs.sync(h); r < 0) fail_io("write", "fsync", path, r);
    if (const int r = handle.close(); r < 0) fail_io("write", "close", path, r);
    if (const int r = fs.rename(at, temporary, at, name); r < 0) fail_io("write", "rename to", path, r);
  } catch (...) {
    fs.unlink(at, temporary);
    throw;
  }
  if (const int r = fs.sync(at); r < 0) fail_io("write", "fsync the directory of", path, r);
}

void make_directories(FileSystem& fs, const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string part = path.substr(0, end);
    if (!part.empty() && part.back() != '/') {
      const int r = fs.make_directory(FileSystem::kHere, part.c_str());
      if (r < 0 && r != -EEXIST) fail_io("open", "make directory", part, r);
      if (r == 0) {
        const size_t slash = part.rfind('/');
        const std::string parent = slash == std::string::npos ? "." : slash == 0 ? "/" : part.substr(0, slash);
        const Handle handle(fs, fs.open_root(parent.c_str()));
        if (handle) {
          if (const int s = fs.sync(handle.get()); s < 0) fail_io("open", "fsync", parent, s);
        }
      }
    }
    if (end == std::string::npos) return;
  }
}

}  // namespace heddle
