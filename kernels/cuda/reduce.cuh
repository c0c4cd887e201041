// Sums over the lanes of a warp and the threads of a block. Every thread gets the result; the order of additions is fixed.
#pragma once

#include "kernels/arch/ptx.h"

namespace heddle::kernels::cuda {

namespace warp {

// warp, converged.
__device__ __forceinline__ float sum(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value += ptx::shfl_bfly(value, offset);
  return value;
}

__device__ __forceinline__ float max(float value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) value = fmaxf(value, ptx::shfl_bfly(value, offset));
  return value;
}

}  // namespace warp

namespace block {

// block, one barrier. `partial` must not be read by an earlier call that no barrier separates from this one: alternate between two buffers.
template <int kThreads>
__device__ __forceinline__ float sum(float value, float (&partial)[kThreads / 32]) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024);
  constexpr int kWarps = kThreads / 32;
  value = warp::sum(value);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  return warp::sum(lane < kWarps ? partial[lane] : 0.0f);
}

}  // namespace block
}  // namespace heddle::kernels::cuda
