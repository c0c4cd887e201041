#include "core/device.h"

#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "core/device_cuda.h"
#include "core/fault.h"
#include "core/immediate_runtime.h"
#include "core/rehearsal.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

class CpuRuntime final : public ImmediateRuntime {
 public:
  int device_count() const override { return 1; }
  size_t memory_limit(int) const override { return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGESIZE)); }
  std::string describe(int) const override { return "the CPU"; }

  void* allocate(int, size_t bytes) override {
    const size_t alignment = bytes >= kHugePage ? kHugePage : kCacheLine;
    void* memory = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    // Large buffers are walked with strides by matmul; huge pages spare the TLB.
    if (memory && bytes >= kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
    return memory;
  }
  void release(int, void* memory, size_t) override { std::free(memory); }
  void* allocate_pinned(size_t bytes) override { return allocate(0, bytes); }
  void release_pinned(void* memory) override { std::free(memory); }
  void copy(void* to, Device, const void* from, Device, size_t bytes, Stream) override { std::memcpy(to, from, bytes); }
  void fill(void* memory, unsigned char value, size_t bytes, Stream) override { std::memset(memory, value, bytes); }

 private:
  static constexpr size_t kCacheLine = 64, kHugePage = size_t{2} << 20;
};

constexpr int kMaxDevices = 64;

// This thread's choices. A null handle of a CUDA device: not chosen, the default stream (which is never CUDA's legacy one).
thread_local constinit Stream cpu_stream{};
thread_local constinit std::array<void*, kMaxDevices> cuda_streams{};
thread_local constinit int current_cuda_device = -1;

void check_index(Device device) {
  if (device.index < 0 || device.index >= kMaxDevices) fail("device", concat(name_of(device), ": devices are numbered from 0 to ", kMaxDevices - 1));
}

// What StreamGuard puts back.
Stream chosen(Device device) {
  if (device.type == DeviceType::cpu) return cpu_stream;
  check_index(device);
  return {device, cuda_streams[static_cast<size_t>(device.index)]};
}

void choose(Stream stream) {
  if (stream.device.type == DeviceType::cpu) {
    cpu_stream = stream;
  } else {
    cuda_streams[static_cast<size_t>(stream.device.index)] = stream.native;
  }
}

}  // namespace

Runtime& runtime(DeviceType type) {
  if (rehearsing()) return rehearsal_runtime(type);
  static CpuRuntime cpu;
  if (type == DeviceType::cpu) return cpu;
  return cuda_runtime();
}

bool has_device(Device device) {
  if (rehearsing()) return device.index == 0;
  return device.index >= 0 && device.index < (device.type == DeviceType::cpu ? 1 : cuda_device_count());
}

Stream current_stream(Device device) {
  if (device.type == DeviceType::cpu) return cpu_stream;
  check_index(device);
  if (rehearsing()) return rehearsal_runtime(device.type).default_stream(device.index);
  if (current_cuda_device != device.index) {
    cuda_runtime().make_current(device.index);
    current_cuda_device = device.index;
  }
  void*& native = cuda_streams[static_cast<size_t>(device.index)];
  if (!native) native = cuda_runtime().default_stream(device.index).native;
  return {device, native};
}

StreamGuard::StreamGuard(Stream stream) : previous_(chosen(stream.device)) {
  choose(stream);
}
StreamGuard::~StreamGuard() {
  choose(previous_);
}

OwnStream::OwnStream(Device device, StreamPriority priority)
    : stream_(runtime(device.type).create_stream(device.index, priority)), priority_(priority) {}
OwnStream::~OwnStream() {
  runtime(stream_.device.type).release_stream(stream_, priority_);
}

Event::Event(Device device) : device_(device), native_(runtime(device.type).create_event(device.index)) {}
Event::~Event() {
  if (native_) runtime(device_.type).destroy_event(native_);
}
Event::Event(Event&& other) noexcept : device_(other.device_), native_(std::exchange(other.native_, nullptr)) {}
Event& Event::operator=(Event&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(native_, other.native_);
  return *this;
}
void Event::record(Stream stream) {
  runtime(device_.type).record(native_, stream);
}
void Event::wait(Stream stream) const {
  runtime(device_.type).wait(stream, native_);
}
bool Event::reached() const {
  return runtime(device_.type).reached(native_);
}
void Event::synchronize() const {
  runtime(device_.type).synchronize_event(native_);
}

PinnedMemory::PinnedMemory(Device device, size_t bytes) : device_(device), bytes_(bytes) {
  data_ = static_cast<std::byte*>(runtime(device.type).allocate_pinned(bytes));
  if (!data_ && bytes) fail("allocate", concat("no memory for ", bytes, " pinned bytes of the host"), ExitCode::out_of_memory);
}
PinnedMemory::~PinnedMemory() {
  if (data_) runtime(device_.type).release_pinned(data_);
}
PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept
    : device_(other.device_), data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

void copy_async(void* to, Device to_device, const void* from, Device from_device, size_t bytes, Stream stream) {
  if (bytes == 0) return;  // an empty tensor's memory may be null, which memcpy must not be given
  runtime(stream.device.type).copy(to, to_device, from, from_device, bytes, stream);
}

void copy_bytes(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  const Device driver = to_device.type == DeviceType::cpu ? from_device : to_device;
  const Stream stream = current_stream(driver);
  copy_async(to, to_device, from, from_device, bytes, stream);
  if (to_device.type == from_device.type || bytes == 0) return;
  const bool fault_comes_along = to_device.type == DeviceType::cpu && fetch_fault(driver, stream);
  runtime(driver.type).synchronize(stream);
  if (fault_comes_along) raise_fetched_fault(driver);
}

void synchronize(Device device) {
  runtime(device.type).synchronize(current_stream(device));
}

}  // namespace heddle
