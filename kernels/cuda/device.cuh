// What launching code asks about the current device. Host only.
#pragma once

#include "kernels/arch/platform.h"

namespace heddle::kernels::cuda {

inline int device_attribute(cudaDeviceAttr attribute) {
  int device = 0, value = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&value, attribute, device), "cudaDeviceGetAttribute");
  return value;
}

inline int multiprocessors() {
  return device_attribute(cudaDevAttrMultiProcessorCount);
}

// 80 for A100, 90 for H100.
inline int compute_capability() {
  return 10 * device_attribute(cudaDevAttrComputeCapabilityMajor) + device_attribute(cudaDevAttrComputeCapabilityMinor);
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
