// What a kernel source needs of the machine it is compiled for: launching, and nothing else yet.
//
// A .cu file includes this instead of CUDA's headers, launches through HEDDLE_LAUNCH and contains no #ifdef, so that another compiler than nvcc can
// be given another half of this file.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include "kernels/api/check.h"
#include "kernels/api/types.h"

namespace heddle {

inline cudaStream_t native(Stream stream) {
  return static_cast<cudaStream_t>(stream.native);
}

// Throws Error naming the call, its place and CUDA's own words.
inline void check_cuda(cudaError_t status, const char* call, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (status != cudaSuccess) fail("cuda", concat(call, ": ", cudaGetErrorString(status)), ExitCode::runtime, file, line);
}

}  // namespace heddle

// HEDDLE_LAUNCH((kernel<T>), blocks, threads, shared_bytes, stream, args...): a bad launch is an Error at once, not at the next call.
#define HEDDLE_LAUNCH(kernel, blocks, threads, shared_bytes, stream, ...)                   \
  do {                                                                                      \
    kernel<<<(blocks), (threads), (shared_bytes), ::heddle::native(stream)>>>(__VA_ARGS__); \
    ::heddle::check_cuda(cudaGetLastError(), "launch of " #kernel);                         \
  } while (false)
