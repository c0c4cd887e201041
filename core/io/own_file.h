// Files that heddle keeps under fixed names in a directory that others can write to: regular files only, never through a link, never waiting on a
// FIFO. And logs that grow by whole records.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace heddle {

// What keeps `path` from being a file of heddle's own: "is a symbolic link", "is not a regular file". Empty: it is a regular file, or there is none.
std::string foreign_kind(const std::string& path);

// At most `bytes` from the beginning; nullopt: there is no such file. Error(bad_data) for a link, FIFO, device or directory, Error(io) for what the
// system refuses.
std::optional<std::string> read_own_file(const std::string& path, size_t bytes);

// A log open for appending, under this name alone: one that has others, because a run was copied by hard links, is first replaced by a copy. A record
// is in the file whole or not at all: what a full disk left of one is cut off at once, so that readers go on past the gap. A process that dies inside
// a write leaves a torn record at the end, for the next start to cut.
class AppendLog {
 public:
  enum class Open { or_create, create_new };
  // Errors as read_own_file(); create_new: Error(io) when the name is taken.
  AppendLog(std::string path, Open how);
  ~AppendLog();
  AppendLog(const AppendLog&) = delete;
  AppendLog& operator=(const AppendLog&) = delete;

  // False: not written. A log must not stop a run: the first failure of a series, and its end, are told on standard error.
  bool append(std::string_view record);
  void append_durably(std::string_view record);  // Error(io) when it is not on the disk

  uint64_t size() const;                                         // bytes
  size_t read(uint64_t offset, char* into, size_t bytes) const;  // 0 at the end
  void cut(uint64_t bytes);                                      // keeps so many, durably: one truncation, never seen half done

  const std::string& path() const { return path_; }
  uint64_t lost() const { return lost_; }  // records that could not be written

 private:
  int write(std::string_view record);  // 0 or -errno

  std::string path_;
  int handle_ = -1;
  std::optional<uint64_t> torn_from_;  // what lies behind is part of a record that could not even be cut off
  uint64_t lost_ = 0, lost_in_a_row_ = 0;
};

}  // namespace heddle
