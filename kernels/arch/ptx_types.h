// Types and plain helpers that both halves of ptx.h share.
#pragma once

#include <cuda.h>
#include <cuda_bf16.h>

#include <cstdint>
#include <type_traits>

#include "kernels/arch/platform.h"

namespace heddle {

// Storage to arithmetic and back; to bf16 rounds to nearest even. heddle's own bf16 (kernels/api/types.h) and CUDA's are the same 16 bits.
__device__ __forceinline__ float to_float(float x) {
  return x;
}
__device__ __forceinline__ float to_float(bf16 x) {
  return static_cast<float>(x);
}
__device__ __forceinline__ float to_float(__nv_bfloat16 x) {
  return __bfloat162float(x);
}
template <class T>
__device__ __forceinline__ T from_float(float x) {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, bf16> || std::is_same_v<T, __nv_bfloat16>, "float or bf16");
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    return __float2bfloat16_rn(x);
  } else {
    return static_cast<T>(x);
  }
}

}  // namespace heddle

namespace heddle::ptx {

// The caller's place in the source: what the simulated machine and bounded waits name in their reports. Else nothing under nvcc.
#if defined(__CUDACC__) && defined(HEDDLE_BOUNDED_WAITS)
struct Where {
  const char* file;
  int line;
  // Not two default members: nvcc 13.0 dies of those.
  __host__ __device__ constexpr Where(const char* f = __builtin_FILE(), int l = __builtin_LINE()) : file(f), line(l) {}
};
#elif defined(__CUDACC__)
struct Where {};
#else
struct Where {
  const char* file = __builtin_FILE();
  int line = __builtin_LINE();
  constexpr sim::Site op(const char* what) const { return {file, line, what}; }
};
#endif

// How long L2 should keep what an access brings in: an opaque operand of createpolicy.
enum class L2Policy : uint64_t {};

inline constexpr uint32_t kFullWarp = 0xFFFFFFFFu;

}  // namespace heddle::ptx
