// Sums and maxima over the lanes of a warp and the threads of a block. Every thread gets the result; the order of additions is fixed.
#pragma once

#include "kernels/arch/ptx.h"

namespace heddle::kernels::cuda {

namespace warp {

// warp, converged.
__device__ __forceinline__ float across(float value, int lane_xor) {
  return ptx::shfl_bfly(value, lane_xor);
}
__device__ __forceinline__ double across(double value, int lane_xor) {
  const uint64_t bits = __builtin_bit_cast(uint64_t, value);
  const uint64_t low = ptx::shfl_bfly(static_cast<uint32_t>(bits), lane_xor), high = ptx::shfl_bfly(static_cast<uint32_t>(bits >> 32), lane_xor);
  return __builtin_bit_cast(double, high << 32 | low);
}

// warp, converged. Over every kLanes neighbours by themselves.
template <int kLanes = 32, class T>
__device__ __forceinline__ T sum(T value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value += across(value, offset);
  return value;
}

template <int kLanes = 32>
__device__ __forceinline__ float max(float value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) value = fmaxf(value, across(value, offset));
  return value;
}

}  // namespace warp

namespace block {

// block, one barrier. `partial` must not be read by an earlier call that no barrier separates from this one: alternate between two buffers.
template <int kThreads, class T>
__device__ __forceinline__ T sum(T value, T (&partial)[kThreads / 32]) {
  static_assert(kThreads % 32 == 0 && kThreads <= 1024);
  constexpr int kWarps = kThreads / 32;
  value = warp::sum(value);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  return warp::sum(lane < kWarps ? partial[lane] : T{0});
}

template <int kThreads>
__device__ __forceinline__ float max(float value, float (&partial)[kThreads / 32]) {
  constexpr int kWarps = kThreads / 32;
  value = warp::max(value);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (lane == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  return warp::max(partial[lane % kWarps]);
}

}  // namespace block
}  // namespace heddle::kernels::cuda
