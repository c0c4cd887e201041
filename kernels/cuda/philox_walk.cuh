// How a grid deals out what is drawn by Philox: a thread takes kWidth elements from a multiple of kWidth of the unsharded tensor on, whole groups of
// four, wherever the shard begins and however it is aligned.
#pragma once

#include "kernels/api/philox.h"
#include "kernels/cuda/map.cuh"

namespace heddle::kernels::cuda {

inline constexpr int kPhiloxThreads = 256;

struct PhiloxWalk {
  uint64_t first;  // the shard's first element in the unsharded tensor
  int64_t n;       // its elements

  // Units of `width` elements that touch the shard, and the blocks that take one a thread.
  int64_t units(int width) const {
    const auto w = static_cast<uint64_t>(width);
    return static_cast<int64_t>((first % w + static_cast<uint64_t>(n) + w - 1) / w);
  }
  unsigned blocks(int width) const { return static_cast<unsigned>((units(width) + kPhiloxThreads - 1) / kPhiloxThreads); }
  // Do whole units lie in this view at multiples of their size?
  bool whole(const View& v, int width) const {
    const auto size = static_cast<uint64_t>(size_of(v.dtype)), w = static_cast<uint64_t>(width);
    return (reinterpret_cast<uintptr_t>(v.data) - first % w * size) % (w * size) == 0;
  }
};

// The caller's unit: `at`, the place in the shard of its first element (negative where the shard begins within), and the group that this one starts.
template <int kWidth>
__device__ __forceinline__ void philox_unit(const PhiloxWalk& walk, int64_t& at, uint64_t& group) {
  const uint64_t unit = walk.first / kWidth + static_cast<uint64_t>(blockIdx.x) * kPhiloxThreads + threadIdx.x;
  at = static_cast<int64_t>(unit * kWidth) - static_cast<int64_t>(walk.first);
  group = unit * (kWidth / 4);
}

// Elements [at, at + kWidth) of a shard, what lies outside as 0. `whole`: as PhiloxWalk::whole says of its memory.
template <class T, int kWidth>
__device__ __forceinline__ void load_drawn(const PhiloxWalk& walk, const std::byte* from, int64_t at, bool whole, float (&values)[kWidth]) {
  if (whole && at >= 0 && at + kWidth <= walk.n) {
    uint32_t raw[kWidth];
    thread::load_unit<T, kWidth>(from, at, false, kWidth, raw);
    thread::unpack_unit<T, kWidth>(raw, false, values);
    return;
  }
#pragma unroll
  for (int e = 0; e < kWidth; ++e) values[e] = at + e >= 0 && at + e < walk.n ? to_float(reinterpret_cast<const T*>(from)[at + e]) : 0.0f;
}
template <class T, int kWidth>
__device__ __forceinline__ void store_drawn(const PhiloxWalk& walk, std::byte* to, int64_t at, bool whole, const float (&values)[kWidth]) {
  if (whole && at >= 0 && at + kWidth <= walk.n) return thread::store_unit<T, kWidth>(to, at, false, kWidth, values);
#pragma unroll
  for (int e = 0; e < kWidth; ++e) {
    if (at + e >= 0 && at + e < walk.n) reinterpret_cast<T*>(to)[at + e] = from_float<T>(values[e]);
  }
}

}  // namespace heddle::kernels::cuda
