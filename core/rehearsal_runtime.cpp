#include "core/rehearsal.h"

#include <sys/mman.h>

#include <cstdint>
#include <map>
#include <mutex>

#include "core/immediate_runtime.h"

namespace heddle {
namespace {

bool on = false;

class RehearsalRuntime final : public ImmediateRuntime {
 public:
  explicit RehearsalRuntime(DeviceType type) : type_(type) {}

  int device_count() const override { return 1; }
  size_t memory_limit(int) const override { return SIZE_MAX; }
  std::string describe(int) const override { return "a rehearsal"; }

  // What is large is no memory at all, only addresses, so no limit of this process counts; the host reads of small things alone (a step's result).
  void* allocate(int, size_t bytes) override {
    if (bytes < kLarge) return map(bytes);
    const std::lock_guard lock(mutex_);
    void* const memory = reinterpret_cast<void*>(next_address_);
    next_address_ += (bytes + kLarge - 1) / kLarge * kLarge;
    return memory;
  }
  void release(int, void* memory, size_t bytes) override {
    if (bytes < kLarge) ::munmap(memory, bytes);
  }
  void* allocate_pinned(size_t bytes) override {
    void* const memory = map(bytes);
    const std::lock_guard lock(mutex_);
    if (memory) pinned_[memory] = bytes;
    return memory;
  }
  void release_pinned(void* memory) override {
    const std::lock_guard lock(mutex_);
    const auto it = pinned_.find(memory);
    if (it == pinned_.end()) return;
    ::munmap(memory, it->second);
    pinned_.erase(it);
  }
  void copy(void*, Device, const void*, Device, size_t, Stream) override {}
  void fill(void*, unsigned char, size_t, Stream) override {}

  Stream default_stream(int device) override { return {{type_, device}, type_ == DeviceType::cpu ? nullptr : static_cast<void*>(this)}; }
  // No two alike: the allocator keeps a pool for each.
  Stream create_stream(int device, StreamPriority) override {
    return {{type_, device}, type_ == DeviceType::cpu ? nullptr : &streams_[next_++ % kStreams]};
  }

 private:
  static void* map(size_t bytes) {
    if (bytes == 0) return nullptr;
    void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
  }

  static constexpr size_t kStreams = 64, kLarge = size_t{1} << 20;
  DeviceType type_;
  std::byte streams_[kStreams];
  size_t next_ = 0;
  uintptr_t next_address_ = uintptr_t{1} << 46;  // between the program and what the system maps
  std::mutex mutex_;
  std::map<void*, size_t> pinned_;
};

}  // namespace

Runtime& rehearsal_runtime(DeviceType type) {
  static RehearsalRuntime& cpu = *new RehearsalRuntime(DeviceType::cpu);  // outlive every Storage
  static RehearsalRuntime& cuda = *new RehearsalRuntime(DeviceType::cuda);
  return type == DeviceType::cpu ? cpu : cuda;
}

bool rehearsing() {
  return on;
}

void set_rehearsing(bool begins) {
  on = begins;
}

}  // namespace heddle
