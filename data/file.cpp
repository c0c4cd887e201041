#include "data/file.h"

#include <fcntl.h>
#include <glob.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <list>
#include <mutex>
#include <new>
#include <utility>

#include "core/io/file_system.h"
#include "core/io/sha256.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

[[noreturn]] void fail_io(const std::string& path, const char* what, int error) {
  fail("file", concat(path, ": cannot ", what, ": ", std::strerror(error), cure_of(error)), ExitCode::io);
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

// ---- files that are read at any place ----

namespace {

struct Descriptor {
  int number;
  explicit Descriptor(int n) : number(n) {}
  ~Descriptor() { ::close(number); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
};

}  // namespace

struct SharedFile::Impl {
  std::string path;
  dev_t device = 0;
  ino_t inode = 0;
  uint64_t size = 0;
  // Both under the pool's mutex. Whoever reads holds the descriptor too, so that it is closed only after the last of them.
  std::shared_ptr<Descriptor> descriptor;
  std::list<Impl*>::iterator place;
};

namespace {

// The files whose descriptors are open, the one used last at the front.
class OpenFiles {
 public:
  static OpenFiles& instance() {
    static OpenFiles files;
    return files;
  }

  std::shared_ptr<Descriptor> get(SharedFile::Impl& file) {
    const std::lock_guard lock(mutex_);
    if (file.descriptor) {
      open_.splice(open_.begin(), open_, file.place);
      return file.descriptor;
    }
    while (open_.size() >= most()) close_last();
    auto descriptor = std::make_shared<Descriptor>(open_regular(file.path, nullptr));
    struct stat status;
    if (::fstat(descriptor->number, &status) != 0) fail_io(file.path, "stat", errno);
    if (file.inode == 0 && file.device == 0) {
      file.device = status.st_dev;
      file.inode = status.st_ino;
      file.size = static_cast<uint64_t>(status.st_size);
    } else if (file.device != status.st_dev || file.inode != status.st_ino) {
      fail("file", concat(file.path, ": another file has taken its place while it was in use; give this job files that stay"), ExitCode::bad_data);
    }
    open_.push_front(&file);
    file.place = open_.begin();
    file.descriptor = descriptor;
    return descriptor;
  }

  void forget(SharedFile::Impl& file) {
    const std::lock_guard lock(mutex_);
    if (!file.descriptor) return;
    open_.erase(file.place);
    file.descriptor.reset();
  }

 private:
  static size_t most() {
    struct rlimit limit;
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kMostOpen;
    return std::clamp<size_t>(static_cast<size_t>(limit.rlim_cur) / 4, 1, kMostOpen);
  }
  void close_last() {
    open_.back()->descriptor.reset();
    open_.pop_back();
  }
  static constexpr size_t kMostOpen = 256;
  std::mutex mutex_;
  std::list<SharedFile::Impl*> open_;
};

}  // namespace

SharedFile::SharedFile(const std::string& path) : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  OpenFiles::instance().get(*impl_);
}

SharedFile::SharedFile(SharedFile&&) noexcept = default;

SharedFile& SharedFile::operator=(SharedFile&& other) noexcept {
  impl_.swap(other.impl_);
  return *this;
}

SharedFile::~SharedFile() {
  if (impl_) OpenFiles::instance().forget(*impl_);
}

uint64_t SharedFile::size() const {
  return impl_->size;
}

void SharedFile::read(uint64_t offset, void* to, size_t bytes) const {
  const std::shared_ptr<Descriptor> descriptor = OpenFiles::instance().get(*impl_);
  char* at = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = ::pread(descriptor->number, at, bytes, static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) fail_io(impl_->path, concat("read at offset ", offset).c_str(), errno);
    if (got == 0) {
      struct stat status {};
      ::fstat(descriptor->number, &status);
      fail("file",
           concat(impl_->path, ": ends at offset ", status.st_size, ", but was ", impl_->size,
                  " bytes long when it was opened; it was cut short while in use: copy or write it again"),
           ExitCode::bad_data);
    }
    at += got;
    offset += static_cast<uint64_t>(got);
    bytes -= static_cast<size_t>(got);
  }
}

std::string SharedFile::sha256() const {
  Sha256 hash;
  std::vector<char> block(static_cast<size_t>(std::min<uint64_t>(impl_->size, uint64_t{1} << 20)));
  for (uint64_t at = 0; at < impl_->size;) {
    const size_t bytes = static_cast<size_t>(std::min<uint64_t>(block.size(), impl_->size - at));
    read(at, block.data(), bytes);
    hash.update(block.data(), bytes);
    at += bytes;
  }
  return hex(hash.finish());
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
  descriptor_ = real_file_system().create_file(FileSystem::kHere, path_.c_str());
  if (descriptor_ < 0) fail_io(path_, "create", -descriptor_);
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
  std::vector<char> buffer(size_t{1} << 16);
  while (const size_t got = file.read(buffer.data(), buffer.size())) {
    content.append(buffer.data(), got);
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

std::vector<std::string> expand_glob(const std::string& pattern, const std::string& cure) {
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
    fail("file", concat("no file matches '", pattern, "'; ", cure), ExitCode::usage);
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
