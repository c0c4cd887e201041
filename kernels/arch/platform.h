// What a kernel source needs of the machine it is compiled for: its qualifiers and built-in variables, shared memory, launching.
//
// A .cu or .cuh includes this instead of CUDA's headers and contains no #ifdef: under nvcc the names below are CUDA's own; under any other C++
// compiler they are the simulated machine's (kernels/sim). Single instructions are in ptx.h.
//
//   __global__ void scale(float* x, int n, float by) {
//     HEDDLE_SHARED(float, tile, [256]);                    // float (&tile)[256]
//     float* extra = heddle::dyn_smem<float>();              // the launch's dynamic shared memory
//     ...
//   }
//   HEDDLE_LAUNCH(scale, blocks, 256, extra_bytes, stream, x, n, 2.0f);
//   HEDDLE_LAUNCH((reduce<float, 4>), blocks, 128, 0, stream, x);          // parentheses where the kernel's name holds a comma
//   HEDDLE_LAUNCH_AS(multiply, shape, stream, a, b, c);                    // shape: LaunchShape, for clusters and cooperative launches
//
// A kernel must not: hold inline assembly, declare __shared__ itself, spin on memory except through spin_until, assume that lanes run in lockstep,
// read threadIdx on a host thread, call the host's libraries.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "kernels/api/check.h"
#include "kernels/api/types.h"
#if defined(HEDDLE_BOUNDED_WAITS)
#include "kernels/arch/bounded_wait.h"
#endif

namespace heddle {

inline cudaStream_t native(Stream stream) {
  return static_cast<cudaStream_t>(stream.native);
}

// Throws Error naming the call, its place and CUDA's own words.
inline void check_cuda(cudaError_t status, const char* call, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  if (status == cudaSuccess) return;
#if defined(HEDDLE_BOUNDED_WAITS)
  fail("cuda", concat(call, ": ", cudaGetErrorString(status), wait_report()), ExitCode::runtime, file, line);
#else
  fail("cuda", concat(call, ": ", cudaGetErrorString(status)), ExitCode::runtime, file, line);
#endif
}

// How a kernel is laid over the machine.
struct LaunchShape {
  dim3 grid = 1;
  dim3 block = 1;
  size_t shared_bytes = 0;   // dynamic, up to 227 KiB less the kernel's own
  dim3 cluster = 1;          // blocks per cluster; more than one needs sm_90
  bool cooperative = false;  // all blocks run at once: grid-wide barriers and flags are allowed
};

}  // namespace heddle

#ifdef __CUDACC__
#include "kernels/arch/platform_nv.inl"
#else
#include "kernels/arch/platform_sim.inl"
#endif

// A bad launch is an Error at once, not at the next call.
#define HEDDLE_LAUNCH(kernel, blocks, threads, shared_bytes_, stream, ...)                                                               \
  ::heddle::launch_kernel(kernel, #kernel, ::heddle::LaunchShape{.grid = (blocks), .block = (threads), .shared_bytes = (shared_bytes_)}, \
                          (stream)__VA_OPT__(, ) __VA_ARGS__)
#define HEDDLE_LAUNCH_AS(kernel, shape, stream, ...) ::heddle::launch_kernel(kernel, #kernel, (shape), (stream)__VA_OPT__(, ) __VA_ARGS__)
