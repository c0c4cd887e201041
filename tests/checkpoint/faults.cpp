#include "tests/checkpoint/faults.h"

#include <unistd.h>

#include <cerrno>

namespace heddle::test {

const char* name_of(Call call) {
  constexpr const char* kNames[] = {"open_root",
                                    "open_linked_file",
                                    "open_directory",
                                    "open_file",
                                    "create_file",
                                    "open_lock",
                                    "make_directory",
                                    "lock",
                                    "allocate",
                                    "write",
                                    "read",
                                    "sync",
                                    "close",
                                    "info",
                                    "exists",
                                    "list",
                                    "rename",
                                    "unlink",
                                    "remove_directory",
                                    "drop_cache"};
  return kNames[static_cast<int>(call)];
}

template <class Body>
int64_t WatchedFileSystem::pass(Call call, Body body) const {
  const int64_t injected = before(call);
  if (injected < 0) {
    if (call == Call::close) body();
    return injected;
  }
  const int64_t r = body();
  after(call);
  return r;
}

namespace {
FileSystem& real() {
  return real_file_system();
}
}  // namespace

int WatchedFileSystem::open_root(const char* path) {
  return static_cast<int>(pass(Call::open_root, [&] { return real().open_root(path); }));
}
int WatchedFileSystem::open_linked_file(const char* path) {
  return static_cast<int>(pass(Call::open_linked_file, [&] { return real().open_linked_file(path); }));
}
int WatchedFileSystem::open_directory(int at, const char* name) {
  return static_cast<int>(pass(Call::open_directory, [&] { return real().open_directory(at, name); }));
}
int WatchedFileSystem::open_file(int at, const char* name) {
  return static_cast<int>(pass(Call::open_file, [&] { return real().open_file(at, name); }));
}
int WatchedFileSystem::create_file(int at, const char* name) {
  return static_cast<int>(pass(Call::create_file, [&] { return real().create_file(at, name); }));
}
int WatchedFileSystem::open_lock(int at, const char* name) {
  return static_cast<int>(pass(Call::open_lock, [&] { return real().open_lock(at, name); }));
}
int WatchedFileSystem::make_directory(int at, const char* name) {
  return static_cast<int>(pass(Call::make_directory, [&] { return real().make_directory(at, name); }));
}
int WatchedFileSystem::lock(int handle) {
  return static_cast<int>(pass(Call::lock, [&] { return real().lock(handle); }));
}
int WatchedFileSystem::allocate(int handle, uint64_t size) {
  return static_cast<int>(pass(Call::allocate, [&] { return real().allocate(handle, size); }));
}
int64_t WatchedFileSystem::write(int handle, const void* from, size_t bytes, uint64_t offset) {
  return pass(Call::write, [&] { return real().write(handle, from, write_limit(bytes), offset); });
}
int64_t WatchedFileSystem::read(int handle, void* to, size_t bytes, uint64_t offset) const {
  return pass(Call::read, [&] { return real().read(handle, to, bytes, offset); });
}
int WatchedFileSystem::sync(int handle) {
  return static_cast<int>(pass(Call::sync, [&] { return real().sync(handle); }));
}
int WatchedFileSystem::close(int handle) {
  return static_cast<int>(pass(Call::close, [&] { return real().close(handle); }));
}
int WatchedFileSystem::info(int handle, FileInfo& out) const {
  return static_cast<int>(pass(Call::info, [&] { return real().info(handle, out); }));
}
int WatchedFileSystem::exists(int at, const char* name) const {
  return static_cast<int>(pass(Call::exists, [&] { return real().exists(at, name); }));
}
int WatchedFileSystem::list(int handle, std::vector<std::string>& names) const {
  return static_cast<int>(pass(Call::list, [&] { return real().list(handle, names); }));
}
int WatchedFileSystem::rename(int from_at, const char* from, int to_at, const char* to) {
  return static_cast<int>(pass(Call::rename, [&] { return real().rename(from_at, from, to_at, to); }));
}
int WatchedFileSystem::unlink(int at, const char* name) {
  return static_cast<int>(pass(Call::unlink, [&] { return real().unlink(at, name); }));
}
int WatchedFileSystem::remove_directory(int at, const char* name) {
  return static_cast<int>(pass(Call::remove_directory, [&] { return real().remove_directory(at, name); }));
}
int WatchedFileSystem::drop_cache(int handle) {
  return static_cast<int>(pass(Call::drop_cache, [&] { return real().drop_cache(handle); }));
}

int64_t FaultyFileSystem::before(Call call) const {
  const int64_t n = ++calls_;
  const bool here = n == fault_.at || (fault_.sticky && n > fault_.at);
  if (!here || fault_.kind == Kind::none) return 0;
  if (fault_.kind == Kind::die_before) ::_exit(kDied);
  if (fault_.kind != Kind::error) return 0;
  // A disk that stays full still reads, closes and deletes; interrupted calls would hang if every one was interrupted.
  const bool takes_space = call == Call::create_file || call == Call::make_directory || call == Call::allocate || call == Call::write ||
                           call == Call::sync || call == Call::rename || call == Call::open_lock;
  if ((fault_.error == ENOSPC || fault_.error == EDQUOT) && fault_.sticky && !takes_space) return 0;
  if (fault_.error == EINTR && fault_.sticky && n > fault_.at && n % 2 == 0) return 0;
  ++hits_;
  return -fault_.error;
}

void FaultyFileSystem::after(Call) const {
  if (fault_.kind == Kind::die_after && calls_ == fault_.at) ::_exit(kDied);
}

size_t FaultyFileSystem::write_limit(size_t bytes) const {
  if (fault_.kind != Kind::short_write || bytes < 2) return bytes;
  const int64_t n = calls_;
  if (n != fault_.at && !(fault_.sticky && n > fault_.at)) return bytes;
  ++hits_;
  return bytes / 2;
}

RecordingFileSystem::RecordingFileSystem(std::string root) : root_(std::move(root)), entries_(1) {}

int RecordingFileSystem::add(Traced op) {
  trace_.push_back(std::move(op));
  return static_cast<int>(entries_.size()) - 1;
}

void RecordingFileSystem::mark(uint64_t number) {
  const std::lock_guard lock(mutex_);
  Traced op{Traced::Kind::mark};
  op.offset = number;
  add(std::move(op));
}

// The inode of the directory a name lies in, -1 outside the root; `last` is the name's last component.
int RecordingFileSystem::directory_of(int at, const char* name, std::string& last) const {
  if (at != kHere) {
    last = name;
    const auto it = handles_.find(at);
    return it == handles_.end() ? -1 : it->second;
  }
  const std::string path = name;
  if (path.rfind(root_ + "/", 0) != 0) return -1;
  std::string_view rest = std::string_view(path).substr(root_.size() + 1);
  int inode = 0;
  for (size_t slash = rest.find('/'); slash != rest.npos; slash = rest.find('/')) {
    inode = entries_[static_cast<size_t>(inode)].at(std::string(rest.substr(0, slash)));
    rest.remove_prefix(slash + 1);
  }
  last = rest;
  return inode;
}

int RecordingFileSystem::open_root(const char* path) {
  const int h = WatchedFileSystem::open_root(path);
  const std::lock_guard lock(mutex_);
  if (h < 0) return h;
  handles_.erase(h);
  std::string last;
  if (path == root_) {
    handles_[h] = 0;
  } else if (const int d = directory_of(kHere, path, last); d >= 0) {
    handles_[h] = entries_[static_cast<size_t>(d)].at(last);
  }
  return h;
}

int RecordingFileSystem::open_directory(int at, const char* name) {
  const std::lock_guard lock(mutex_);
  const int h = WatchedFileSystem::open_directory(at, name);
  if (h >= 0) handles_[h] = entries_[static_cast<size_t>(handles_.at(at))].at(name);
  return h;
}

int RecordingFileSystem::create_file(int at, const char* name) {
  const std::lock_guard lock(mutex_);
  const int h = WatchedFileSystem::create_file(at, name);
  if (h < 0) return h;
  const int inode = static_cast<int>(entries_.size()), d = handles_.at(at);
  entries_.emplace_back();
  entries_[static_cast<size_t>(d)][name] = inode;
  handles_[h] = inode;
  Traced op{Traced::Kind::create_file};
  op.inode = d;
  op.child = inode;
  op.name = name;
  add(std::move(op));
  return h;
}

int RecordingFileSystem::open_lock(int at, const char* name) {
  const bool absent = exists(at, name) != 0;
  if (absent) {
    const int h = create_file(at, name);
    if (h >= 0) close(h);
  }
  return WatchedFileSystem::open_lock(at, name);
}

int RecordingFileSystem::make_directory(int at, const char* name) {
  const std::lock_guard lock(mutex_);
  const int r = WatchedFileSystem::make_directory(at, name);
  if (r < 0) return r;
  std::string last;
  const int d = directory_of(at, name, last);
  if (d < 0) return r;
  const int inode = static_cast<int>(entries_.size());
  entries_.emplace_back();
  entries_[static_cast<size_t>(d)][last] = inode;
  Traced op{Traced::Kind::make_directory};
  op.inode = d;
  op.child = inode;
  op.name = last;
  add(std::move(op));
  return r;
}

int RecordingFileSystem::allocate(int handle, uint64_t size) {
  const std::lock_guard lock(mutex_);
  Traced op{Traced::Kind::allocate};
  op.inode = handles_.at(handle);
  op.offset = size;
  add(std::move(op));
  return WatchedFileSystem::allocate(handle, size);
}

int64_t RecordingFileSystem::write(int handle, const void* from, size_t bytes, uint64_t offset) {
  const std::lock_guard lock(mutex_);
  Traced op{Traced::Kind::write};
  op.inode = handles_.at(handle);
  op.data.assign(static_cast<const char*>(from), bytes);
  op.offset = offset;
  add(std::move(op));
  return WatchedFileSystem::write(handle, from, bytes, offset);
}

int RecordingFileSystem::sync(int handle) {
  const std::lock_guard lock(mutex_);
  if (const auto it = handles_.find(handle); it != handles_.end()) {
    Traced op{Traced::Kind::sync};
    op.inode = it->second;
    add(std::move(op));
  }
  return WatchedFileSystem::sync(handle);
}

int RecordingFileSystem::rename(int from_at, const char* from, int to_at, const char* to) {
  const std::lock_guard lock(mutex_);
  const int r = WatchedFileSystem::rename(from_at, from, to_at, to);
  if (r < 0) return r;
  Traced op{Traced::Kind::rename};
  op.inode = handles_.at(from_at);
  op.to = handles_.at(to_at);
  op.name = from;
  op.to_name = to;
  auto& source = entries_[static_cast<size_t>(op.inode)];
  op.child = source.at(from);
  source.erase(from);
  entries_[static_cast<size_t>(op.to)][to] = op.child;
  add(std::move(op));
  return r;
}

int RecordingFileSystem::unlink(int at, const char* name) {
  const std::lock_guard lock(mutex_);
  const int r = WatchedFileSystem::unlink(at, name);
  if (r < 0) return r;
  Traced op{Traced::Kind::unlink};
  op.inode = handles_.at(at);
  op.name = name;
  entries_[static_cast<size_t>(op.inode)].erase(name);
  add(std::move(op));
  return r;
}

int RecordingFileSystem::remove_directory(int at, const char* name) {
  const std::lock_guard lock(mutex_);
  const int r = WatchedFileSystem::remove_directory(at, name);
  if (r < 0) return r;
  Traced op{Traced::Kind::remove_directory};
  op.inode = handles_.at(at);
  op.name = name;
  entries_[static_cast<size_t>(op.inode)].erase(name);
  add(std::move(op));
  return r;
}

}  // namespace heddle::test
