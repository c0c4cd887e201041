#include "core/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include "kernels/api/check.h"

namespace heddle {
namespace {

class CpuRuntime final : public Runtime {
 public:
  int device_count() const override { return 1; }

  void* allocate(int, size_t bytes) override {
    const size_t alignment = bytes >= kHugePage ? kHugePage : kCacheLine;
    void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    // Large buffers are walked with strides by matmul; huge pages spare the TLB.
    if (memory && bytes >= kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
  }
  void release(int, void* memory, size_t) override { std::free(memory); }
  size_t memory_limit(int) const override { return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
  void copy(void* to, Device, const void* from, Device, size_t bytes, Stream) override { std::memcpy(to, from, bytes); }
  Stream default_stream(int) override { return {}; }
  void synchronize(Stream) override {}
  void* create_event() override { return nullptr; }
  void destroy_event(void*) override {}
  void record(void*, Stream) override {}
  void wait(Stream, void*) override {}
  void synchronize_event(void*) override {}

 private:
  static constexpr size_t kCacheLine = 64, kHugePage = size_t{2} << 20;
};

thread_local Stream current[2] = {{Device{DeviceType::cpu, 0}}, {Device{DeviceType::cuda, 0}}};

}  // namespace

Runtime& runtime(DeviceType type) {
  static CpuRuntime cpu;
  if (type == DeviceType::cpu) return cpu;
  fail("device", "this build has no CUDA devices; configure with HEDDLE_CUDA=ON, or use --device cpu", ExitCode::no_device);
}

bool has_device(Device device) {
  return device.type == DeviceType::cpu && device.index == 0;
}

Stream current_stream(Device device) {
  Stream stream = current[static_cast<size_t>(device.type)];
  if (stream.device != device) return runtime(device.type).default_stream(device.index);
  return stream;
}

StreamGuard::StreamGuard(Stream stream) : previous_(current[static_cast<size_t>(stream.device.type)]) {
  current[static_cast<size_t>(stream.device.type)] = stream;
}
StreamGuard::~StreamGuard() {
  current[static_cast<size_t>(previous_.device.type)] = previous_;
}

Event::Event(DeviceType type) : type_(type), native_(runtime(type).create_event()) {}
Event::~Event() {
  if (native_) runtime(type_).destroy_event(native_);
}
Event::Event(Event&& other) noexcept : type_(other.type_), native_(std::exchange(other.native_, nullptr)) {}
Event& Event::operator=(Event&& other) noexcept {
  std::swap(type_, other.type_);
  std::swap(native_, other.native_);
  return *this;
}
void Event::record(Stream stream) {
  runtime(type_).record(native_, stream);
}
void Event::wait(Stream stream) const {
  runtime(type_).wait(stream, native_);
}
void Event::synchronize() const {
  runtime(type_).synchronize_event(native_);
}

void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (bytes == 0) return;  // an empty tensor's memory may be null, which memcpy must not be given
  const Device driver = to_device.type == DeviceType::cpu ? from_device : to_device;
  runtime(driver.type).copy(to, to_device, from, from_device, bytes, current_stream(driver));
}

void synchronize(Device device) {
  runtime(device.type).synchronize(current_stream(device));
}

}  // namespace heddle
