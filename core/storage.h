// Device memory: a caching allocator and the Storage it hands out.
//
// Freed blocks are kept and given again to requests of about their size on the same stream, so a training step allocates nothing after its first
// run. Counters per tag tell where memory went; an out-of-memory error prints them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

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
  uint64_t version_ = 0;
};

// At least `bytes` bytes, 64-byte aligned (CPU) or as the device aligns, not initialised. Throws Error(out_of_memory) with the breakdown by tag.
std::shared_ptr<Storage> allocate(Device, size_t bytes, MemoryTag, Stream);

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

// Fills every new allocation with 0xFF bytes (NaN in f32, bf16 and f64): an element nobody writes shows. For tests.
void poison_allocations(bool on);

}  // namespace heddle
