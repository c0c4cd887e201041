// Disks that misbehave: one that fails or dies at its n-th call, one that writes down what it was asked to do.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "core/io/file_system.h"

namespace heddle::test {

enum class Call {
  open_root,
  open_linked_file,
  open_directory,
  open_file,
  create_file,
  open_lock,
  make_directory,
  lock,
  allocate,
  write,
  read,
  sync,
  close,
  info,
  exists,
  list,
  rename,
  unlink,
  remove_directory,
  drop_cache
};
const char* name_of(Call call);

// Passes every call on to the real file system, through one function that a subclass may override.
class WatchedFileSystem : public FileSystem {
 public:
  int open_root(const char* path) override;
  int open_linked_file(const char* path) override;
  int open_directory(int at, const char* name) override;
  int open_file(int at, const char* name) override;
  int create_file(int at, const char* name) override;
  int open_lock(int at, const char* name) override;
  int make_directory(int at, const char* name) override;
  int lock(int handle) override;
  int allocate(int handle, uint64_t size) override;
  int64_t write(int handle, const void* from, size_t bytes, uint64_t offset) override;
  int64_t read(int handle, void* to, size_t bytes, uint64_t offset) const override;
  int sync(int handle) override;
  int close(int handle) override;
  int info(int handle, FileInfo& out) const override;
  int exists(int at, const char* name) const override;
  int list(int handle, std::vector<std::string>& names) const override;
  int rename(int from_at, const char* from, int to_at, const char* to) override;
  int unlink(int at, const char* name) override;
  int remove_directory(int at, const char* name) override;
  int drop_cache(int handle) override;

 protected:
  // What stands in front of a call: 0 lets it through, a negative errno is returned instead of it (close closes all the same).
  virtual int64_t before(Call) const { return 0; }
  virtual void after(Call) const {}
  // At most this many bytes of a write are passed on.
  virtual size_t write_limit(size_t bytes) const { return bytes; }

 private:
  template <class Body>
  int64_t pass(Call call, Body body) const;
};

class FaultyFileSystem final : public WatchedFileSystem {
 public:
  enum class Kind { none, error, short_write, die_before, die_after };
  struct Fault {
    Kind kind = Kind::none;
    int64_t at = 0;       // the call, from 1
    int error = 0;        // errno, for Kind::error
    bool sticky = false;  // also every later call (of the writing kind, for ENOSPC and EDQUOT)
  };
  static constexpr int kDied = 97;  // the exit status of a process that died at its fault

  void set(const Fault& fault) {
    fault_ = fault;
    calls_ = hits_ = 0;
  }
  int64_t calls() const { return calls_; }
  int64_t hits() const { return hits_; }

 protected:
  int64_t before(Call) const override;
  void after(Call) const override;
  size_t write_limit(size_t bytes) const override;

 private:
  Fault fault_;
  mutable std::atomic<int64_t> calls_{0}, hits_{0};
};

// A system call that changes the disk, on inodes instead of names.
struct Traced {
  enum class Kind { create_file, make_directory, allocate, write, sync, rename, unlink, remove_directory, mark } kind;
  int inode = 0, to = 0;  // the directory for names (rename: from, to), else the file
  int child = -1;         // created, renamed or removed
  std::string name, to_name;
  std::string data;
  uint64_t offset = 0;  // or size, or the marked number
};

class RecordingFileSystem final : public WatchedFileSystem {
 public:
  // Everything below `root`, an empty existing directory, is recorded; it is inode 0.
  explicit RecordingFileSystem(std::string root);

  void mark(uint64_t number);  // the caller has been told that this is safe
  const std::vector<Traced>& trace() const { return trace_; }

  int open_root(const char* path) override;
  int open_directory(int at, const char* name) override;
  int create_file(int at, const char* name) override;
  int open_lock(int at, const char* name) override;
  int make_directory(int at, const char* name) override;
  int allocate(int handle, uint64_t size) override;
  int64_t write(int handle, const void* from, size_t bytes, uint64_t offset) override;
  int sync(int handle) override;
  int rename(int from_at, const char* from, int to_at, const char* to) override;
  int unlink(int at, const char* name) override;
  int remove_directory(int at, const char* name) override;

 private:
  int directory_of(int at, const char* name, std::string& last) const;
  int add(Traced op);

  std::string root_;
  mutable std::mutex mutex_;
  std::vector<Traced> trace_;
  std::vector<std::map<std::string, int>> entries_;  // of each inode, as the running system sees them
  std::map<int, int> handles_;
};

}  // namespace heddle::test
