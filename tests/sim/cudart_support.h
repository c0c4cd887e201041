// What the tests of the simulated runtime share.
#pragma once

#include <cuda_runtime_api.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "kernels/sim/cudart/cudart.h"
#include "tests/support/catch.h"

namespace heddle::test {

// A fresh runtime; what the test leaves behind is dropped at its end.
struct FreshRuntime {
  explicit FreshRuntime(uint64_t seed = 1, int devices = 1) {
    sim::RuntimeOptions options;
    options.seed = seed;
    options.devices = devices;
    options.memory = size_t{64} << 20;
    sim::reset_runtime(options);
  }
  explicit FreshRuntime(const sim::RuntimeOptions& options) { sim::reset_runtime(options); }
  ~FreshRuntime() { sim::reset_runtime(sim::RuntimeOptions{}); }
};

inline void ok(cudaError_t status) {
  INFO(cudaGetErrorString(status));
  REQUIRE(status == cudaSuccess);
}

// The call was refused with this code, and the report names all of `parts`.
inline void refused(cudaError_t status, cudaError_t code, std::initializer_list<std::string> parts = {}) {
  const std::string report = sim::runtime_report();
  CHECK(std::string(cudaGetErrorName(status)) == cudaGetErrorName(code));
  for (const std::string& part : parts) {
    INFO("report: " << report);
    CHECK(report.find(part) != std::string::npos);
  }
  cudaGetLastError();
}

inline cudaStream_t new_stream(unsigned flags = cudaStreamNonBlocking) {
  cudaStream_t stream = nullptr;
  ok(cudaStreamCreateWithFlags(&stream, flags));
  return stream;
}
inline cudaEvent_t new_event(unsigned flags = cudaEventDisableTiming) {
  cudaEvent_t event = nullptr;
  ok(cudaEventCreateWithFlags(&event, flags));
  return event;
}
template <class T = float>
T* device_array(size_t n) {
  void* data = nullptr;
  ok(cudaMalloc(&data, n * sizeof(T)));
  return static_cast<T*>(data);
}
template <class T = float>
T* pinned_array(size_t n) {
  void* data = nullptr;
  ok(cudaMallocHost(&data, n * sizeof(T)));
  return static_cast<T*>(data);
}
template <class T>
std::vector<T> on_host(const T* device, size_t n) {
  std::vector<T> values(n);
  ok(cudaMemcpy(values.data(), device, n * sizeof(T), cudaMemcpyDeviceToHost));
  return values;
}
template <class T>
void to_device(T* device, const std::vector<T>& values) {
  ok(cudaMemcpy(device, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
}

}  // namespace heddle::test
