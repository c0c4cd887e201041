#include "core/storage.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <map>
#include <mutex>
#include <sstream>
#include <utility>
#include <vector>

#include "core/rehearsal.h"
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

// A block nobody holds. Its own stream may use it again; the events are those of the last work of other streams on it.
struct Block {
  std::byte* data = nullptr;
  std::vector<void*> after;
};
using Pool = std::multimap<size_t, Block>;  // by size

// The first block of [size, 1.25 size] that `take` accepts.
template <class Take>
Pool::iterator find_fitting(Pool& pool, size_t size, const Take& take) {
  for (auto it = pool.lower_bound(size); it != pool.end() && it->first <= size + size / 4; ++it) {
    if (take(it->second)) return it;
  }
  return pool.end();
}

thread_local int captures = 0;  // GraphMemory objects of this thread whose capture is on

}  // namespace

std::string_view name_of(MemoryTag tag) {
  constexpr std::string_view names[] = {"parameter", "gradient", "activation", "optimizer", "workspace"};
  return names[static_cast<size_t>(tag)];
}

// One per device.
class Allocator {
 public:
  explicit Allocator(Device device) : device_(device), runtime_(runtime(device.type)) {}

  static Allocator& of(Device device) {
    static std::mutex mutex;
    using All = std::map<std::pair<bool, Device>, std::unique_ptr<Allocator>>;
    static All& all = *new All;  // outlives every Storage
    std::lock_guard lock(mutex);
    auto& slot = all[{rehearsing(), device}];
    if (!slot) slot = std::make_unique<Allocator>(device);
    return *slot;
  }

  std::shared_ptr<Storage> take(size_t bytes, MemoryTag tag, Stream stream) {
    const bool graph = captures > 0 && runtime_.capturing(stream);
    size_t reserved = round_size(bytes);
    std::byte* data = nullptr;
    {
      std::lock_guard lock(mutex_);
      data = graph ? from_graphs(reserved, stream) : from_cache(reserved, stream);
      if (data) count(tag, reserved);
    }
    if (!data) {
      data = fresh(reserved, bytes, tag);
      std::lock_guard lock(mutex_);
      count(tag, reserved);
    }
    auto storage = std::make_shared<Storage>(device_, data, bytes, reserved, tag, stream);
    storage->graph_ = graph;
    if (poison && bytes > 0) runtime_.fill(data, 0xff, bytes, stream);
    return storage;
  }

  void record_use(Storage& storage, Stream stream) {
    if (stream.native == storage.stream_.native) return;
    std::lock_guard lock(mutex_);
    if (std::find(storage.used_by_.begin(), storage.used_by_.end(), stream.native) == storage.used_by_.end())
      storage.used_by_.push_back(stream.native);
  }

  void give_back(Storage& storage) {
    std::lock_guard lock(mutex_);
    stats_.live[static_cast<size_t>(storage.tag_)] -= storage.reserved_;
    stats_.live_total -= storage.reserved_;
    if (captures > 0 && capture_) {
      // What the graph does with the block is in no stream's order yet. Of its own pool, one stream's work is.
      const bool ordered = storage.graph_ && storage.used_by_.empty();
      (ordered ? in_capture_[storage.stream_.native] : storage.graph_ ? after_capture_ : kept_).emplace(storage.reserved_, Block{storage.data_, {}});
      return;
    }
    try {
      Block block{storage.data_, {}};
      for (void* user : storage.used_by_) {
        block.after.push_back(event());
        runtime_.record(block.after.back(), {device_, user});
      }
      (storage.graph_ ? graphs_ : pools_[storage.stream_.native]).emplace(storage.reserved_, std::move(block));
    } catch (const std::exception&) {
      // The device is lost; the next call says so. Nobody gets the block again.
    }
  }

  void release_cached() {
    std::lock_guard lock(mutex_);
    for (auto& [stream, pool] : pools_) release(pool);
  }

  void begin_capture() {
    std::lock_guard lock(mutex_);
    HEDDLE_CHECK(!capture_, "graph", name_of(device_), ": two captures at once");
    for (auto& [size, block] : graphs_) {  // while it may still be asked
      while (!block.after.empty() && runtime_.reached(block.after.back())) {
        idle_events_.push_back(block.after.back());
        block.after.pop_back();
      }
    }
    capture_ = true;
    ++captures;
    ++graph_users_;
  }
  void end_capture() {
    std::lock_guard lock(mutex_);
    capture_ = false;
    --captures;
    // All streams of the capture have joined its first one, and graphs follow each other.
    for (auto& [stream, pool] : in_capture_) graphs_.merge(pool);
    graphs_.merge(after_capture_);
  }
  void end_graph() {
    {
      std::lock_guard lock(mutex_);
      if (--graph_users_ > 0) return;
    }
    try {
      runtime_.synchronize_device(device_.index);
    } catch (const std::exception&) {
      return;  // the device is lost
    }
    std::lock_guard lock(mutex_);
    if (graph_users_ > 0) return;
    release(graphs_);
    release(kept_);
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
  void count(MemoryTag tag, size_t reserved) {
    const auto t = static_cast<size_t>(tag);
    stats_.live[t] += reserved;
    stats_.peak[t] = std::max(stats_.peak[t], stats_.live[t]);
    stats_.live_total += reserved;
    stats_.peak_total = std::max(stats_.peak_total, stats_.live_total);
  }

  std::byte* remove(Pool& pool, Pool::iterator at, size_t& reserved) {
    std::byte* const data = at->second.data;
    for (void* event : at->second.after) idle_events_.push_back(event);
    reserved = at->first;
    pool.erase(at);
    return data;
  }

  // A block of another stream may still be in use there; only the own stream's order makes reuse safe. Best is a block that nobody else works on any
  // more; else the stream waits, which costs less than memory that grows with the delays of a run.
  std::byte* from_cache(size_t& reserved, Stream stream) {
    Pool& pool = pools_[stream.native];
    auto at = find_fitting(pool, reserved, [&](const Block& block) {
      return std::all_of(block.after.begin(), block.after.end(), [&](void* event) { return captures == 0 && runtime_.reached(event); });
    });
    if (at == pool.end()) {
      at = find_fitting(pool, reserved, [](const Block&) { return true; });
      if (at == pool.end()) return nullptr;
      for (void* event : at->second.after) runtime_.wait(stream, event);
    }
    return remove(pool, at, reserved);
  }

  std::byte* from_graphs(size_t& reserved, Stream stream) {
    for (Pool* pool : {&in_capture_[stream.native], &graphs_}) {
      const auto at = find_fitting(*pool, reserved, [](const Block& block) { return block.after.empty(); });
      if (at != pool->end()) return remove(*pool, at, reserved);
    }
    return nullptr;
  }

  void* event() {
    if (idle_events_.empty()) return runtime_.create_event(device_.index);
    void* const event = idle_events_.back();
    idle_events_.pop_back();
    return event;
  }

  void release(Pool& pool) {
    while (!pool.empty()) {
      for (void* event : pool.begin()->second.after) runtime_.synchronize_event(event);
      size_t size = 0;
      std::byte* const data = remove(pool, pool.begin(), size);
      runtime_.release(device_.index, data, size);
      stats_.reserved -= size;
    }
  }

  std::byte* fresh(size_t size, size_t asked, MemoryTag tag) {
    void* data = runtime_.allocate(device_.index, size);
    if (!data && captures == 0) {  // a capture may not wait for what the blocks still do
      release_cached();
      data = runtime_.allocate(device_.index, size);
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
  Runtime& runtime_;
  std::mutex mutex_;
  std::map<void*, Pool> pools_;  // by stream
  std::vector<void*> idle_events_;
  MemoryStats stats_;

  // Memory of graphs.
  bool capture_ = false;
  int graph_users_ = 0;
  Pool graphs_;                       // free between graphs
  std::map<void*, Pool> in_capture_;  // freed by the capture that is on, by stream
  Pool after_capture_;                // the same, where several streams worked on it
  Pool kept_;                         // from outside, but freed in a capture, so perhaps known to a graph
};

Storage::~Storage() {
  Allocator::of(device_).give_back(*this);
}

std::shared_ptr<Storage> allocate(Device device, size_t bytes, MemoryTag tag, Stream stream) {
  return Allocator::of(device).take(bytes, tag, stream);
}

void record_use(Storage& storage, Stream stream) {
  Allocator::of(storage.device()).record_use(storage, stream);
}

GraphMemory::GraphMemory(Device device) : device_(device) {
  Allocator::of(device).begin_capture();
}
GraphMemory::~GraphMemory() {
  captured();
  Allocator::of(device_).end_graph();
}
void GraphMemory::captured() {
  if (std::exchange(capturing_, false)) Allocator::of(device_).end_capture();
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
