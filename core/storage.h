// Device memory: a caching allocator and the Storage it hands out.
//
// Freed blocks are kept and given again to requests of about their size on the same stream, so a training step allocates nothing after its first
// run. The stream's own order makes that safe; a block that another stream works on too says so (record_use) and is given again only behind that
// work: the stream waits, never the host. Counters per tag tell where memory went; an out-of-memory error prints them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/device.h"
#include "kernels/api/types.h"

namespace heddle {

enum class MemoryTag : uint8_t { parameter, gradient, activation, optimizer, workspace };
inline constexpr int kMemoryTags = 5;
std::string_view name_of(MemoryTag);

// Bytes of one device. Movable handles share it; it returns to the allocator with the last one.
class Storage {
 public:
  Storage(Device device, std::byte* data, size_t bytes, size_t reserved, MemoryTag tag, Stream stream)
      : device_(device), data_(data), bytes_(bytes), reserved_(reserved), tag_(tag), stream_(stream) {}
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  Device device() const { return device_; }
  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

  // Counts in-place writes: autograd compares it with the count at the time a tensor was saved.
  uint64_t version() const { return version_; }
  void bump_version() { ++version_; }

 private:
  friend class Allocator;
  Device device_;
  std::byte* data_;
  size_t bytes_, reserved_;
  MemoryTag tag_;
  Stream stream_;
  std::vector<void*> used_by_;  // other streams
  bool graph_ = false;          // of the graphs' pool
  uint64_t version_ = 0;
};

// At least `bytes` bytes, 64-byte aligned (CPU) or as the device aligns, not initialised. Throws Error(out_of_memory) with the breakdown by tag.
std::shared_ptr<Storage> allocate(Device, size_t bytes, MemoryTag, Stream);

// Work that uses the storage is, or will be before the storage is freed, on this stream as well as on the one it was allocated for. Without it a
// freed block may be overwritten while that work still runs.
void record_use(Storage&, Stream);

// Held by a graph (core/graph.h) from its capture to its end: what this thread allocates meanwhile on capturing streams comes from a pool that all
// graphs of the device share, and no address that a graph knows is used for anything else while one of them lives. So they run one after the other.
class GraphMemory {
 public:
  explicit GraphMemory(Device);  // a capture is about to begin. Error: another one of this device is on
  ~GraphMemory();                // the last one waits for the device and gives the pool back
  GraphMemory(const GraphMemory&) = delete;
  GraphMemory& operator=(const GraphMemory&) = delete;
  void captured();  // the capture has ended

 private:
  Device device_;
  bool capturing_ = true;
};

struct MemoryStats {
  std::array<size_t, kMemoryTags> live{}, peak{};  // bytes handed out, by tag
  size_t live_total = 0, peak_total = 0;
  size_t reserved = 0;              // bytes taken from the device, cached ones included
  uint64_t device_allocations = 0;  // times the device was asked: constant once a loop has warmed up
};
MemoryStats memory_stats(Device);
void reset_peaks(Device);
// Gives cached blocks back to the device.
void release_cached(Device);
std::string memory_report(Device);

// Fills every new allocation with 0xFF bytes (NaN in f32, bf16 and f64), in stream order: an element nobody writes shows. For tests.
void poison_allocations(bool on);

}  // namespace heddle
