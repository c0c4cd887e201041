// What launching code asks about the device this thread launches on. Host only.
#pragma once

#include <atomic>
#include <vector>

#include "kernels/api/kernel.h"
#include "kernels/arch/platform.h"

namespace heddle::kernels::cuda {

struct DeviceFacts {
  int multiprocessors = 0;
  int compute_capability = 0;  // 80 for A100, 90 for H100
};

inline std::vector<DeviceFacts> ask_device_facts() {
  int devices = 0;
  check_cuda(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  const auto ask = [](cudaDeviceAttr attribute, int device) {
    int value = 0;
    check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
    return value;
  };
  std::vector<DeviceFacts> facts;
  for (int device = 0; device < devices; ++device) {
    facts.push_back({ask(cudaDevAttrMultiProcessorCount, device),
                     10 * ask(cudaDevAttrComputeCapabilityMajor, device) + ask(cudaDevAttrComputeCapabilityMinor, device)});
  }
  return facts;
}

// Of every device, asked once: a launch asks the driver nothing. A test that gives the simulated machine other devices sets it to nullptr.
inline std::atomic<const std::vector<DeviceFacts>*> known_device_facts{nullptr};

inline const DeviceFacts& device_facts() {
  const std::vector<DeviceFacts>* known = known_device_facts.load(std::memory_order_acquire);
  if (!known) {
    known = new std::vector<DeviceFacts>(ask_device_facts());  // for the life of the process
    known_device_facts.store(known, std::memory_order_release);
  }
  return known->at(static_cast<size_t>(cuda_device_of_thread));
}

inline int multiprocessors() {
  return device_facts().multiprocessors;
}
inline int compute_capability() {
  return device_facts().compute_capability;
}

// Can TMA, cp.async and 16-byte accesses read rows of this view?
inline bool rows_aligned_16(const View& v) {
  if (reinterpret_cast<uintptr_t>(v.data) % 16 != 0) return false;
  for (int axis = 0; axis + 1 < v.rank; ++axis) {
    if (v.shape[axis] > 1 && v.stride[axis] * size_of(v.dtype) % 16 != 0) return false;
  }
  return true;
}

}  // namespace heddle::kernels::cuda
