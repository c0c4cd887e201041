// CUDA devices, by the runtime API alone: a build with kernels/sim in place of the CUDA runtime has simulated ones.
#include "core/device_cuda.h"

#include <cuda_runtime_api.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <mutex>
#include <thread>
#include <vector>

#include "core/queued_ops.h"
#include "kernels/api/check.h"
#include "kernels/api/fault.h"
#include "kernels/api/kernel.h"

namespace heddle {
namespace {

void check(cudaError_t status, const char* call, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (status == cudaSuccess) return;
  std::string text = concat(call, ": ", cudaGetErrorString(status));
  if (status == cudaErrorIllegalAddress || status == cudaErrorLaunchFailure || status == cudaErrorMisalignedAddress ||
      status == cudaErrorIllegalInstruction || status == cudaErrorAssert) {
    text += queued_ops_text();  // a kernel's, of some time before this call
    text += "\n  CUDA_LAUNCH_BLOCKING=1 makes the launch itself fail and so names the kernel";
  }
  if (kernels::about_device_errors) text += kernels::about_device_errors();
  fail("cuda", text, ExitCode::runtime, file, line);
}

cudaStream_t native(Stream stream) {
  return static_cast<cudaStream_t>(stream.native);
}
cudaEvent_t event_of(void* event) {
  return static_cast<cudaEvent_t>(event);
}

// Makes a device current for a scope: memory, streams and events belong to the one that is.
class Current {
 public:
  explicit Current(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (device != before_) check(cudaSetDevice(device), "cudaSetDevice");
    changed_ = device != before_;
  }
  ~Current() {
    if (changed_) cudaSetDevice(before_);
  }
  Current(const Current&) = delete;
  Current& operator=(const Current&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// Allocation is no work of a stream, so a capture of this thread need not forbid it.
class Uncaptured {
 public:
  Uncaptured() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  ~Uncaptured() { cudaThreadExchangeStreamCaptureMode(&mode_); }
  Uncaptured(const Uncaptured&) = delete;
  Uncaptured& operator=(const Uncaptured&) = delete;

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// What a call that allocates gives: nullptr without memory.
void* memory_or_null(cudaError_t status, void* memory, const char* call) {
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // it is answered for here
    return nullptr;
  }
  check(status, call);
  return memory;
}

// Who is asked during a wait; recursive, since whoever is asked may wait itself.
std::recursive_mutex watch_mutex;
std::list<std::function<void()>> watches;

// Waits by asking `query`, where somebody watches; false: nobody does.
template <class Query>
bool wait_watched(const char* call, Query query) {
  constexpr int kAtOnce = 200;  // polls without sleep
  for (int polls = 0;; ++polls) {
    {
      const std::lock_guard lock(watch_mutex);
      if (watches.empty()) return false;
      for (const auto& ask : watches) ask();
    }
    const cudaError_t status = query();
    if (status != cudaErrorNotReady) {
      check(status, call);
      return true;
    }
    cudaGetLastError();  // an answer, not a failure
    if (polls < kAtOnce) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
  }
}

class CudaRuntime final : public Runtime {
 public:
  explicit CudaRuntime(int devices) : devices_(static_cast<size_t>(devices)) {}

  int device_count() const override { return static_cast<int>(devices_.size()); }

  size_t memory_limit(int device) const override {
    const Current current(device);
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    return total;
  }

  std::string describe(int device) const override {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
    char memory[32];
    std::snprintf(memory, sizeof memory, "%.1f GiB", static_cast<double>(properties.totalGlobalMem) / (1024.0 * 1024 * 1024));
    return concat(properties.name, ", sm_", properties.major, properties.minor, ", ", properties.multiProcessorCount, " multiprocessors, ", memory);
  }

  bool simulated() const override {
#if defined(HEDDLE_SIMULATED)
    return true;
#else
    return false;
#endif
  }
  void make_current(int device) override {
    check(cudaSetDevice(device), "cudaSetDevice");
    kernels::cuda_device_of_thread = device;
  }

  void* allocate(int device, size_t bytes) override {
    const Current current(device);
    const Uncaptured uncaptured;
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    return memory_or_null(status, memory, "cudaMalloc");
  }
  void release(int, void* memory, size_t) override {
    const Uncaptured uncaptured;
    cudaFree(memory);
  }
  void* allocate_pinned(size_t bytes) override {
    const Uncaptured uncaptured;
    void* memory = nullptr;
    const cudaError_t status = cudaHostAlloc(&memory, bytes, cudaHostAllocPortable);
    return memory_or_null(status, memory, "cudaHostAlloc");
  }
  void release_pinned(void* memory) override {
    const Uncaptured uncaptured;
    cudaFreeHost(memory);
  }

  void copy(void* to, Device, const void* from, Device, size_t bytes, Stream stream) override {
    check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, native(stream)), "cudaMemcpyAsync");
  }
  void fill(void* memory, unsigned char value, size_t bytes, Stream stream) override {
    check(cudaMemsetAsync(memory, value, bytes, native(stream)), "cudaMemsetAsync");
  }

  Stream default_stream(int device) override {
    const std::lock_guard lock(mutex_);
    PerDevice& of = devices_.at(static_cast<size_t>(device));
    if (!of.main) of.main = make_stream(device, StreamPriority::normal);
    return {{DeviceType::cuda, device}, of.main};
  }
  Stream create_stream(int device, StreamPriority priority) override {
    const std::lock_guard lock(mutex_);
    std::vector<cudaStream_t>& idle = devices_.at(static_cast<size_t>(device)).idle[static_cast<size_t>(priority)];
    cudaStream_t stream = nullptr;
    if (idle.empty()) {
      stream = make_stream(device, priority);
    } else {
      stream = idle.back();
      idle.pop_back();
    }
    return {{DeviceType::cuda, device}, stream};
  }
  void release_stream(Stream stream, StreamPriority priority) override {
    const std::lock_guard lock(mutex_);
    devices_.at(static_cast<size_t>(stream.device.index)).idle[static_cast<size_t>(priority)].push_back(native(stream));
  }

  void* create_event(int device) override {
    const Current current(device);
    cudaEvent_t event = nullptr;
    check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreateWithFlags");
    return event;
  }
  void destroy_event(void* event) override {
    cudaEventDestroy(event_of(event));
  }
  void record(void* event, Stream stream) override {
    check(cudaEventRecord(event_of(event), native(stream)), "cudaEventRecord");
  }
  void wait(Stream stream, void* event) override {
    check(cudaStreamWaitEvent(native(stream), event_of(event), 0), "cudaStreamWaitEvent");
  }
  bool reached(void* event) override {
    const cudaError_t status = cudaEventQuery(event_of(event));
    if (status == cudaErrorNotReady) {
      cudaGetLastError();  // an answer, not a failure
      return false;
    }
    check(status, "cudaEventQuery");
    return true;
  }

  void begin_capture(Stream stream) override {
    check(cudaStreamBeginCapture(native(stream), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  }
  bool capturing(Stream stream) override {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    check(cudaStreamIsCapturing(native(stream), &status), "cudaStreamIsCapturing");
    return status != cudaStreamCaptureStatusNone;
  }
  void* end_capture(Stream stream) override {
    cudaGraph_t graph = nullptr;
    check(cudaStreamEndCapture(native(stream), &graph), "cudaStreamEndCapture");
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = cudaGraphInstantiate(&executable, graph, 0);
    cudaGraphDestroy(graph);
    check(status, "cudaGraphInstantiate");
    return executable;
  }
  void launch_graph(void* executable, Stream stream) override {
    check(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable), native(stream)), "cudaGraphLaunch");
  }
  void destroy_graph(void* executable) override {
    cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable));
  }

 private:
  struct PerDevice {
    cudaStream_t main = nullptr;
    std::array<std::vector<cudaStream_t>, 2> idle;  // by priority
  };

  static cudaStream_t make_stream(int device, StreamPriority priority) {
    const Current current(device);
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
    cudaStream_t stream = nullptr;
    // Non-blocking: the legacy default stream, which libraries may use, makes nothing of ours wait.
    check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority == StreamPriority::high ? greatest : least),
          "cudaStreamCreateWithPriority");
    return stream;
  }

  void wait_on_host(Stream stream) override {
    if (!wait_watched("cudaStreamQuery", [&] { return cudaStreamQuery(native(stream)); }))
      check(cudaStreamSynchronize(native(stream)), "cudaStreamSynchronize");
  }
  void wait_on_host(void* event) override {
    if (!wait_watched("cudaEventQuery", [&] { return cudaEventQuery(event_of(event)); }))
      check(cudaEventSynchronize(event_of(event)), "cudaEventSynchronize");
  }
  void wait_on_host(int device) override {
    const Current current(device);
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  }

  std::mutex mutex_;
  std::vector<PerDevice> devices_;
};

// What the machine has, or why it has nothing.
struct Found {
  int devices = 0;
  std::string missing;
};

Found look() {
  Found found;
  const cudaError_t status = cudaGetDeviceCount(&found.devices);
  if (status == cudaSuccess && found.devices > 0) {
    kernels::register_cuda_kernels();
    kernels::register_vendor_kernels();
    return found;
  }
  cudaGetLastError();
  int driver = 0, needed = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&needed);
  const auto version = [](int v) { return concat(v / 1000, ".", v % 1000 / 10); };
  if (status != cudaSuccess && driver == 0) {
    found.missing = "this machine has no NVIDIA driver (no libcuda)";
  } else if (status == cudaErrorInsufficientDriver) {
    found.missing = concat("the NVIDIA driver knows CUDA ", version(driver), " only, and this build needs ", version(needed));
  } else if (status == cudaSuccess || status == cudaErrorNoDevice) {
    found.missing = "the NVIDIA driver shows this process no GPU; look at CUDA_VISIBLE_DEVICES and nvidia-smi";
  } else {
    found.missing = concat("cudaGetDeviceCount: ", cudaGetErrorString(status));
  }
  found.devices = 0;
  return found;
}

const Found& found() {
  static const Found result = look();
  return result;
}

}  // namespace

int cuda_device_count() {
  return found().devices;
}

std::string cuda_device_uuid(int device) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  std::string text = "GPU-";
  for (int i = 0; i < 16; ++i) {
    char digits[3];
    std::snprintf(digits, sizeof digits, "%02x", static_cast<unsigned char>(properties.uuid.bytes[i]));
    text += concat(i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", digits);
  }
  return text;
}

CudaMoment::CudaMoment(Device device) : device_(device.index) {
  const Current current(device_);
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), "cudaEventCreate");
  event_ = event;
}
CudaMoment::~CudaMoment() {
  if (event_) cudaEventDestroy(event_of(event_));
}
CudaMoment::CudaMoment(CudaMoment&& other) noexcept : device_(other.device_), event_(std::exchange(other.event_, nullptr)) {}

void CudaMoment::record(Stream stream) {
  const Current current(device_);
  check(cudaEventRecord(event_of(event_), native(stream)), "cudaEventRecord");
}
double CudaMoment::seconds_since(const CudaMoment& earlier) const {
  check(cudaEventSynchronize(event_of(event_)), "cudaEventSynchronize");
  float milliseconds = 0;
  check(cudaEventElapsedTime(&milliseconds, event_of(earlier.event_), event_of(event_)), "cudaEventElapsedTime");
  return double{milliseconds} / 1e3;
}

WaitWatch::WaitWatch(std::function<void()> ask) {
  const std::lock_guard lock(watch_mutex);
  place_ = watches.insert(watches.end(), std::move(ask));
}
WaitWatch::~WaitWatch() {
  const std::lock_guard lock(watch_mutex);
  watches.erase(place_);
}

Runtime& cuda_runtime() {
  if (found().devices == 0) fail("device", concat(found().missing, "; --device cpu needs none"), ExitCode::no_device);
  static CudaRuntime* const instance = new CudaRuntime(found().devices);  // storages of static objects return to it late
  return *instance;
}

}  // namespace heddle
