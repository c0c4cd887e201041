#include "kernels/sim/cudart/host_watch.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <mutex>
#include <set>

#include "kernels/api/check.h"

namespace heddle::sim::cudart {
namespace {

constexpr size_t kBlock = 4096;        // bytes per remembered hash
constexpr size_t kWritesKept = 65536;  // device writes remembered; older ones count as having touched everything

struct Range {
  const std::byte *begin, *end;
  bool overlaps(const Range& other) const { return begin < other.end && other.begin < end; }
};
Range range_of(const Rows& rows) {
  return {rows.data, rows.data + rows.extent()};
}

struct Watch {
  std::mutex mutex;
  std::set<HostUse*> pending;
  std::deque<Range> writes;  // by work of streams; an empty begin..end of null stands for "anywhere"
  uint64_t writes_dropped = 0;
  int host_functions = 0;

  uint64_t now() const { return writes_dropped + writes.size(); }
  void add(const Range& range) {
    writes.push_back(range);
    if (writes.size() > kWritesKept) writes.pop_front(), ++writes_dropped;
  }
  bool written_since(uint64_t since, const Range& range) const {
    if (since < writes_dropped) return true;
    for (size_t i = static_cast<size_t>(since - writes_dropped); i < writes.size(); ++i) {
      if (!writes[i].begin || writes[i].overlaps(range)) return true;
    }
    return false;
  }
};

Watch& watch() {
  static Watch* const instance = new Watch;
  return *instance;
}

uint64_t hash(const std::byte* data, size_t bytes) {
  uint64_t h = 0x9e3779b97f4a7c15ull ^ bytes;
  const auto mix = [&h](uint64_t word) {
    h = (h ^ word) * 0xff51afd7ed558ccdull;
    h ^= h >> 32;
  };
  size_t i = 0;
  for (; i + 8 <= bytes; i += 8) {
    uint64_t word;
    std::memcpy(&word, data + i, 8);
    mix(word);
  }
  for (; i < bytes; ++i) mix(static_cast<uint64_t>(data[i]) + 1);
  return h;
}

// A hash per block of each row; a block that cannot be read hashes to 0.
std::vector<uint64_t> hashes(const Rows& rows) {
  std::vector<uint64_t> result;
  std::byte buffer[kBlock];
  for (size_t r = 0; r < rows.height; ++r) {
    for (size_t at = 0; at < rows.width; at += kBlock) {
      const size_t n = std::min(kBlock, rows.width - at);
      result.push_back(read_host(buffer, rows.row(r) + at, n) ? hash(buffer, n) : 0);
    }
  }
  return result;
}

bool transfer(std::byte* to, const std::byte* from, size_t bytes, bool remote_is_source) {
  const iovec local = {const_cast<std::byte*>(remote_is_source ? to : from), bytes};
  const iovec remote = {const_cast<std::byte*>(remote_is_source ? from : to), bytes};
  const ssize_t n = remote_is_source ? process_vm_readv(getpid(), &local, 1, &remote, 1, 0) : process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
  if (n == static_cast<ssize_t>(bytes)) return true;
  if (n < 0 && (errno == EPERM || errno == ENOSYS)) {  // not allowed here: trust the pointer
    std::memcpy(to, from, bytes);
    return true;
  }
  return false;
}

bool move(std::byte* to, const std::byte* from, size_t bytes, bool remote_is_source) {
  constexpr size_t kPiece = size_t{64} << 20;
  for (size_t at = 0; at < bytes; at += kPiece) {
    if (!transfer(to + at, from + at, std::min(kPiece, bytes - at), remote_is_source)) return false;
  }
  return true;
}

}  // namespace

bool read_host(std::byte* to, const std::byte* from, size_t bytes) {
  return move(to, from, bytes, true);
}

bool write_host(std::byte* to, const std::byte* from, size_t bytes) {
  return move(to, from, bytes, false);
}

HostUse::HostUse(Kind kind, const Rows& rows) : rows_(rows) {
  Watch& w = watch();
  const std::lock_guard lock(w.mutex);
  since_ = w.now();
  if (kind == Kind::writes) {
    const auto used = [&](const HostUse* other) { return range_of(other->rows_).overlaps(range_of(rows)); };
    poisoned_ = w.host_functions == 0 && std::none_of(w.pending.begin(), w.pending.end(), used);
    for (size_t r = 0; poisoned_ && r < rows.height; ++r) std::memset(rows.row(r), kPoison, rows.width);
  }
  if (kind == Kind::reads || poisoned_) blocks_ = hashes(rows);
  w.pending.insert(this);
}

HostUse::~HostUse() {
  Watch& w = watch();
  const std::lock_guard lock(w.mutex);
  w.pending.erase(this);
}

std::string HostUse::disturbed() const {
  if (blocks_.empty()) return {};
  const std::vector<uint64_t> now = hashes(rows_);
  const auto difference = std::mismatch(now.begin(), now.end(), blocks_.begin());
  if (difference.first == now.end()) return {};
  {
    Watch& w = watch();
    const std::lock_guard lock(w.mutex);
    if (w.written_since(since_, range_of(rows_))) return {};
  }
  const auto block = static_cast<size_t>(difference.first - now.begin());
  const size_t per_row = (rows_.width + kBlock - 1) / kBlock, row = block / per_row;
  const size_t begin = row * rows_.pitch + block % per_row * kBlock;
  const size_t end = std::min(begin + kBlock, row * rows_.pitch + rows_.width);
  if (*difference.first == 0) return concat("bytes ", begin, " to ", end - 1, " are no longer mapped");
  return concat("the host changed it between byte ", begin, " and byte ", end - 1);
}

void note_stream_wrote(const Rows& rows) {
  Watch& w = watch();
  const std::lock_guard lock(w.mutex);
  w.add(range_of(rows));
}

void note_host_function_ran() {
  Watch& w = watch();
  const std::lock_guard lock(w.mutex);
  w.add({nullptr, nullptr});
}

void host_function_pending(int change) {
  Watch& w = watch();
  const std::lock_guard lock(w.mutex);
  w.host_functions += change;
}

}  // namespace heddle::sim::cudart
