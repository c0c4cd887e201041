// Memory of the simulated devices: bounds, lifetimes, limits, and accesses that do not belong.
#include <cmath>
#include <csignal>
#include <cstring>

#include "tests/sim/cudart_kernels.h"
#include "tests/sim/cudart_support.h"
#include "tests/sim/in_child.h"

namespace heddle::test {
namespace {

constexpr auto kH2D = cudaMemcpyHostToDevice;
constexpr auto kD2H = cudaMemcpyDeviceToHost;
constexpr auto kD2D = cudaMemcpyDeviceToDevice;

TEST_CASE("copies in every direction and shape") {
  const FreshRuntime fresh(1, 2);
  const std::vector<int> values = {1, 2, 3, 4, 5, 6, 7, 8};
  int *x = device_array<int>(8), *y = device_array<int>(8);
  to_device(x, values);
  ok(cudaMemcpy(y, x, 32, kD2D));
  CHECK(on_host(y, 8) == values);
  // Two rows of three out of rows of four.
  ok(cudaMemset(y, 0, 32));
  ok(cudaMemcpy2D(y, 16, x + 1, 16, 12, 2, kD2D));
  CHECK(on_host(y, 8) == std::vector<int>{2, 3, 4, 0, 6, 7, 8, 0});
  refused(cudaMemcpy2D(y, 8, x, 16, 12, 2, kD2D), cudaErrorInvalidPitchValue, {"rows of 12 bytes"});
  // Kinds are checked against what the pointers are; cudaMemcpyDefault finds out.
  refused(cudaMemcpy(y, values.data(), 32, kD2D), cudaErrorInvalidValue, {"says device to device", "the source pageable host memory"});
  ok(cudaMemcpy(y, values.data(), 32, cudaMemcpyDefault));
  CHECK(on_host(y, 8) == values);
  refused(cudaMemcpy(x + 1, x, 16, kD2D), cudaErrorInvalidValue, {"overlap"});
  refused(cudaMemcpy(nullptr, x, 16, kD2D), cudaErrorInvalidValue, {"null pointer"});

  ok(cudaSetDevice(1));
  int* peer = device_array<int>(8);
  ok(cudaMemcpyPeer(peer, 1, x, 0, 32));
  CHECK(on_host(peer, 8) == values);
  refused(cudaMemcpyPeer(peer, 0, x, 0, 32), cudaErrorInvalidValue, {"from device 0 to device 0", "of device 1"});
  ok(cudaSetDevice(0));
  refused(cudaSetDevice(2), cudaErrorInvalidDevice, {"device 2 of 2"});
}

TEST_CASE("a copy past the end of an allocation names it, its size and where it was made") {
  const FreshRuntime fresh;
  float* x = device_array(10);
  std::vector<float> host(20);
  refused(cudaMemcpy(x + 4, host.data(), 40, kH2D), cudaErrorInvalidValue,
          {"destination", "out of bounds", "16 bytes past the end", "byte 16 of 40 bytes of device 0", "cudaMalloc called by"});
  refused(cudaMemcpyAsync(host.data(), x, 41, kD2H, nullptr), cudaErrorInvalidValue, {"source", "1 bytes past the end"});
  refused(cudaMemset(x - 1, 0, 4), cudaErrorInvalidValue, {"in no allocation"});
  float* pinned = pinned_array(4);
  refused(cudaMemcpy(x, pinned, 20, kH2D), cudaErrorInvalidValue, {"4 bytes past the end", "16 bytes of pinned host memory", "cudaMallocHost"});
  ok(cudaMemcpy(x, pinned, 16, kH2D));
  ok(cudaFreeHost(pinned));
}

TEST_CASE("use after free and double free name both calls") {
  const FreshRuntime fresh;
  float *x = device_array(10), *other = device_array(10);
  std::vector<float> host(10);
  ok(cudaFree(x));
  refused(cudaMemcpy(x, host.data(), 40, kH2D), cudaErrorInvalidValue,
          {"used after free", "byte 0 of 40 bytes", "cudaMalloc called by", "freed by cudaFree called by"});
  refused(cudaFree(x), cudaErrorInvalidValue, {"double free", "freed before by cudaFree", "freed again by cudaFree"});
  refused(cudaFree(other + 1), cudaErrorInvalidValue, {"not what an allocation gave"});
  refused(cudaFree(host.data()), cudaErrorInvalidValue, {"pageable host memory"});
  ok(cudaFree(nullptr));
  // The address is not used again while anybody may still hold it.
  for (int i = 0; i < 50; ++i) {
    float* again = device_array(10);
    CHECK(again != x);
    ok(cudaFree(again));
  }
  CHECK(sim::runtime_counters().live_allocations == 1);
}

TEST_CASE("cudaFree waits for the work that uses the memory") {
  const FreshRuntime fresh;
  const cudaStream_t stream = new_stream();
  float *x = device_array(100), *y = device_array(100);
  ok(cudaMemsetAsync(x, 0, 400, stream));
  ok(cudaMemcpyAsync(y, x, 400, kD2D, stream));
  ok(cudaFree(x));
  CHECK(on_host(y, 100)[99] == 0.0f);
}

// Memory of a pool, allocated and freed in one stream, used in another.
cudaError_t pool_use(uint64_t seed, bool wait_for_allocation, bool free_waits_for_use) {
  sim::RuntimeOptions options;
  options.seed = seed;
  sim::reset_runtime(options);
  const cudaStream_t owner = new_stream(), user = new_stream();
  const cudaEvent_t allocated = new_event(), used = new_event();
  void* x = nullptr;
  ok(cudaMallocAsync(&x, 64, owner));
  ok(cudaEventRecord(allocated, owner));
  if (wait_for_allocation) ok(cudaStreamWaitEvent(user, allocated));
  ok(cudaMemsetAsync(x, 0, 64, user));
  ok(cudaEventRecord(used, user));
  if (free_waits_for_use) ok(cudaStreamWaitEvent(owner, used));
  ok(cudaFreeAsync(x, owner));
  return cudaDeviceSynchronize();
}

TEST_CASE("stream-ordered memory used out of order is found in most orders") {
  int early = 0, late = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    CHECK(pool_use(seed, true, true) == cudaSuccess);
    if (pool_use(seed, false, true) != cudaSuccess) {
      ++early;
      refused(cudaPeekAtLastError(), cudaErrorIllegalAddress,
              {"used before it is allocated", "cudaMallocAsync called by", "once stream 1 has reached"});
    }
    if (pool_use(seed, true, false) != cudaSuccess) {
      ++late;
      refused(cudaPeekAtLastError(), cudaErrorIllegalAddress, {"used after free", "cudaFreeAsync called by", "on stream 1", "memset of 64 bytes"});
    }
  }
  CHECK(early > 6);
  CHECK(late > 6);
  sim::reset_runtime(sim::RuntimeOptions{});
}

TEST_CASE("the memory of a device is limited and accounted for") {
  sim::RuntimeOptions options;
  options.memory = 1 << 20;
  const FreshRuntime fresh(options);
  size_t free = 0, total = 0;
  ok(cudaMemGetInfo(&free, &total));
  CHECK((free == 1 << 20 && total == 1 << 20));
  void *x = nullptr, *y = nullptr;
  ok(cudaMalloc(&x, 700000));
  ok(cudaMemGetInfo(&free, &total));
  CHECK(free == (1 << 20) - 700000);
  refused(cudaMalloc(&y, 700000), cudaErrorMemoryAllocation, {"700000 bytes", "1048576 bytes (HEDDLE_SIM_MEMORY)", "700000 of them in use"});
  CHECK(cudaPeekAtLastError() == cudaSuccess);  // no sticky error
  refused(cudaMalloc(&y, ~size_t{0}), cudaErrorMemoryAllocation);
  ok(cudaFree(x));
  ok(cudaMalloc(&y, 700000));
  CHECK(reinterpret_cast<uintptr_t>(y) % 256 == 0);
  cudaMemPool_t pool = nullptr;
  uint64_t used = 0;
  ok(cudaDeviceGetDefaultMemPool(&pool, 0));
  ok(cudaMemPoolGetAttribute(pool, cudaMemPoolAttrUsedMemCurrent, &used));
  CHECK(used == 700000);
}

TEST_CASE("fresh device memory is NaN") {
  const FreshRuntime fresh;
  CHECK(std::isnan(on_host(device_array(3), 3)[2]));
}

TEST_CASE("what a pointer is") {
  const FreshRuntime fresh(1, 2);
  cudaPointerAttributes attributes;
  ok(cudaSetDevice(1));
  float* x = device_array(4);
  ok(cudaPointerGetAttributes(&attributes, x + 1));
  CHECK((attributes.type == cudaMemoryTypeDevice && attributes.device == 1 && attributes.devicePointer == x + 1));
  float* pinned = pinned_array(4);
  ok(cudaPointerGetAttributes(&attributes, pinned));
  CHECK((attributes.type == cudaMemoryTypeHost && attributes.hostPointer == pinned));
  std::vector<float> host(4);
  ok(cudaPointerGetAttributes(&attributes, host.data()));
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
  ok(cudaHostRegister(host.data(), 16, cudaHostRegisterDefault));
  ok(cudaPointerGetAttributes(&attributes, host.data() + 3));
  CHECK(attributes.type == cudaMemoryTypeHost);
  refused(cudaHostRegister(host.data() + 1, 4, cudaHostRegisterDefault), cudaErrorHostMemoryAlreadyRegistered, {"overlaps 16 bytes"});
  ok(cudaHostUnregister(host.data()));
  refused(cudaHostUnregister(host.data()), cudaErrorHostMemoryNotRegistered);
  ok(cudaFree(x));
  ok(cudaPointerGetAttributes(&attributes, x));
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
}

TEST_CASE("a host access to device memory is reported by name when asked for") {
  const ChildEnd end = in_child([] {
    sim::RuntimeOptions options;
    options.protect = true;
    sim::reset_runtime(options);
    void* x = nullptr;
    cudaMalloc(&x, 4096);
    cudaMemset(x, 0, 4096);
    std::vector<float> host(1024);
    cudaMemcpy(host.data(), x, 4096, cudaMemcpyDeviceToHost);  // legal uses still work
    if (host[5] != 0.0f) _exit(1);
    static_cast<volatile float*>(x)[10] = 1.0f;
  });
  INFO(end.text);
  CHECK(end.signal() == SIGSEGV);
  for (const char* part : {"[cuda] host ", "of device memory", "is byte 40 of 4096 bytes of device 0", "cudaMalloc called by", "; access called by"})
    CHECK(end.text.find(part) != std::string::npos);
}

TEST_CASE("a kernel that runs past the end of an allocation is named in every flavour") {
  const ChildEnd end = in_child([] {
    sim::RuntimeOptions options;
    options.order = sim::StreamOrder::immediate;
    sim::reset_runtime(options);
    void* x = nullptr;
    cudaMalloc(&x, 1024);
    touch(static_cast<float*>(x), 300, nullptr);
  });
  INFO(end.text);
  CHECK(end.signal() == SIGSEGV);
  for (const char* part : {"kernel touch_kernel", "outside an allocation", "is byte 1200 of 1024 bytes of device 0"})
    CHECK(end.text.find(part) != std::string::npos);
}

}  // namespace
}  // namespace heddle::test
