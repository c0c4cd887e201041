#include "core/storage.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>

#include "kernels/api/check.h"

namespace heddle {
namespace {

std::atomic<bool> poison{false};

// Sizes come in steps of an eighth of a power of two: blocks fit many requests and waste at most 12.5 %.
size_t round_size(size_t bytes) {
  constexpr size_t kSmallest = 512;
  if (bytes <= kSmallest) return kSmallest;
  const size_t step = std::bit_floor(bytes) / 8;
  return (bytes + step - 1) / step * step;
}

}  // namespace

std::string_view name_of(MemoryTag tag) {
  constexpr std::string_view names[] = {"parameter", "gradient", "activation", "optimizer", "workspace"};
  return names[static_cast<size_t>(tag)];
}

// One per device.
class Allocator {
 public:
  explicit Allocator(Device device) : device_(device) {}

  static Allocator& of(Device device) {
    static std::mutex mutex;
    static std::map<Device, std::unique_ptr<Allocator>>& all = *new std::map<Device, std::unique_ptr<Allocator>>;  // outlives every Storage
    std::lock_guard lock(mutex);
    auto& slot = all[device];
    if (!slot) slot = std::make_unique<Allocator>(device);
    return *slot;
  }

  std::shared_ptr<Storage> take(size_t bytes, MemoryTag tag, Stream stream) {
    const size_t size = round_size(bytes);
    std::byte* data = nullptr;
    size_t reserved = size;
    {
      std::lock_guard lock(mutex_);
      Pool& pool = pools_[stream.native];
      // A block of another stream may still be in use there; only the own stream's order makes reuse safe.
      if (auto it = pool.lower_bound(size); it != pool.end() && it->first <= size + size / 4) {
        data = it->second;
        reserved = it->first;
        pool.erase(it);
      }
    }
    if (!data) data = fresh(size, bytes, tag);
    {
      std::lock_guard lock(mutex_);
      const auto t = static_cast<size_t>(tag);
      stats_.live[t] += reserved;
      stats_.peak[t] = std::max(stats_.peak[t], stats_.live[t]);
      stats_.live_total += reserved;
      stats_.peak_total = std::max(stats_.peak_total, stats_.live_total);
    }
    if (poison && device_.type == DeviceType::cpu) std::memset(data, 0xff, bytes);
    return std::make_shared<Storage>(device_, data, bytes, reserved, tag, stream);
  }

  void give_back(const Storage& storage) {
    std::lock_guard lock(mutex_);
    pools_[storage.stream_.native].emplace(storage.reserved_, storage.data_);
    stats_.live[static_cast<size_t>(storage.tag_)] -= storage.reserved_;
    stats_.live_total -= storage.reserved_;
  }

  void release_cached() {
    std::lock_guard lock(mutex_);
    for (auto& [stream, pool] : pools_) {
      for (auto& [size, data] : pool) {
        runtime(device_.type).release(device_.index, data, size);
        stats_.reserved -= size;
      }
      pool.clear();
    }
  }

  MemoryStats stats() {
    std::lock_guard lock(mutex_);
    return stats_;
  }
  void reset_peaks() {
    std::lock_guard lock(mutex_);
    stats_.peak = stats_.live;
    stats_.peak_total = stats_.live_total;
  }

 private:
  using Pool = std::multimap<size_t, std::byte*>;

  std::byte* fresh(size_t size, size_t asked, MemoryTag tag) {
    void* data = runtime(device_.type).allocate(device_.index, size);
    if (!data) {
      release_cached();
      data = runtime(device_.type).allocate(device_.index, size);
    }
    if (!data) {
      fail("allocate",
           concat(name_of(device_), ": no memory for ", asked, " bytes of ", name_of(tag), "\n  ", memory_report(device_),
                  "\n  a smaller --batch (with the same --total-batch-tokens), --recompute, or a shorter --seq needs less"),
           ExitCode::out_of_memory);
    }
    std::lock_guard lock(mutex_);
    stats_.reserved += size;
    ++stats_.device_allocations;
    return static_cast<std::byte*>(data);
  }

  Device device_;
  std::mutex mutex_;
  std::map<void*, Pool> pools_;  // by stream
  MemoryStats stats_;
};

Storage::~Storage() {
  Allocator::of(device_).give_back(*this);
}

std::shared_ptr<Storage> allocate(Device device, size_t bytes, MemoryTag tag, Stream stream) {
  return Allocator::of(device).take(bytes, tag, stream);
}

MemoryStats memory_stats(Device device) {
  return Allocator::of(device).stats();
}
void reset_peaks(Device device) {
  Allocator::of(device).reset_peaks();
}
void release_cached(Device device) {
  Allocator::of(device).release_cached();
}

std::string memory_report(Device device) {
  const MemoryStats stats = memory_stats(device);
  std::ostringstream out;
  const auto mib = [](size_t bytes) { return static_cast<double>(bytes >> 10) / 1024; };
  out.precision(1);
  out << std::fixed << name_of(device) << " memory, MiB (live / peak):";
  for (int t = 0; t < kMemoryTags; ++t)
    out << ' ' << name_of(static_cast<MemoryTag>(t)) << ' ' << mib(stats.live[t]) << " / " << mib(stats.peak[t]) << ',';
  out << " total " << mib(stats.live_total) << " / " << mib(stats.peak_total) << ", taken from the device " << mib(stats.reserved);
  return out.str();
}

void poison_allocations(bool on) {
  poison = on;
}

}  // namespace heddle
