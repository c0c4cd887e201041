// Eight bf16 or four f32 in 16 bytes: the unit every memory-bound kernel moves.
#pragma once

#include "kernels/arch/ptx.h"

namespace heddle::kernels::cuda::thread {

// The two halves of a 32-bit register as floats; the low half comes first in memory.
__device__ __forceinline__ float low_half(uint32_t pair) {
  return __uint_as_float(pair << 16);
}
__device__ __forceinline__ float high_half(uint32_t pair) {
  return __uint_as_float(pair & 0xFFFF0000u);
}

__device__ __forceinline__ void unpack(uint4 packed, float (&out)[8]) {
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    out[2 * i] = low_half(words[i]);
    out[2 * i + 1] = high_half(words[i]);
  }
}

__device__ __forceinline__ uint4 pack(const float (&in)[8]) {
  return make_uint4(ptx::cvt_bf16x2(in[0], in[1]), ptx::cvt_bf16x2(in[2], in[3]), ptx::cvt_bf16x2(in[4], in[5]), ptx::cvt_bf16x2(in[6], in[7]));
}

__device__ __forceinline__ void unpack(uint4 packed, float (&out)[4]) {
  const uint32_t words[4] = {packed.x, packed.y, packed.z, packed.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) out[i] = __uint_as_float(words[i]);
}

__device__ __forceinline__ uint4 pack(const float (&in)[4]) {
  return make_uint4(__float_as_uint(in[0]), __float_as_uint(in[1]), __float_as_uint(in[2]), __float_as_uint(in[3]));
}

__device__ __forceinline__ void unpack_f32(uint4 low, uint4 high, float (&out)[8]) {
  const uint32_t words[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
#pragma unroll
  for (int i = 0; i < 8; ++i) out[i] = __uint_as_float(words[i]);
}

__device__ __forceinline__ void load8(const bf16* from, float (&out)[8]) {
  unpack(ptx::ld128(from), out);
}
__device__ __forceinline__ void load8(const float* from, float (&out)[8]) {
  unpack_f32(ptx::ld128(from), ptx::ld128(from + 4), out);
}
__device__ __forceinline__ void store8(bf16* to, const float (&values)[8]) {
  ptx::st128(to, pack(values));
}
__device__ __forceinline__ void store8(float* to, const float (&values)[8]) {
#pragma unroll
  for (int i = 0; i < 8; i += 4) {
    ptx::st128(to + i, make_uint4(__float_as_uint(values[i]), __float_as_uint(values[i + 1]), __float_as_uint(values[i + 2]),
                                  __float_as_uint(values[i + 3])));
  }
}

}  // namespace heddle::kernels::cuda::thread
