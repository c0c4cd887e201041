// bfloat16 storage and its conversions. Source: CUDA Math API, "Bfloat16 Precision Conversion and Data Movement". Arithmetic is left out on purpose:
// heddle computes in float and rounds on the way to memory.
#pragma once

#include <cstdint>

#include "kernels/sim/include/vector_types.h"

typedef struct alignas(2) {
  unsigned short x;
} __nv_bfloat16_raw;
typedef struct alignas(4) {
  unsigned short x, y;
} __nv_bfloat162_raw;

// Rounds to nearest, ties to even; every NaN becomes 0x7fff, as cvt.rn.bf16.f32 gives it.
__host__ __device__ inline unsigned short heddle_bf16_bits(float value) {
  uint32_t bits = __builtin_bit_cast(uint32_t, value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
  return static_cast<unsigned short>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
__host__ __device__ inline float heddle_bf16_value(unsigned short bits) {
  return __builtin_bit_cast(float, static_cast<uint32_t>(bits) << 16);
}

struct alignas(2) __nv_bfloat16 {
  __nv_bfloat16() = default;
  __host__ __device__ __nv_bfloat16(const __nv_bfloat16_raw& raw) : __x(raw.x) {}
  __host__ __device__ __nv_bfloat16(float value) : __x(heddle_bf16_bits(value)) {}
  __host__ __device__ operator __nv_bfloat16_raw() const { return {__x}; }
  __host__ __device__ operator float() const { return heddle_bf16_value(__x); }

 protected:
  unsigned short __x;
};

struct alignas(4) __nv_bfloat162 {
  __nv_bfloat16 x, y;
  __nv_bfloat162() = default;
  __host__ __device__ constexpr __nv_bfloat162(const __nv_bfloat16& a, const __nv_bfloat16& b) : x(a), y(b) {}
};
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;

__host__ __device__ inline __nv_bfloat16 __float2bfloat16(float a) {
  return {a};
}
__host__ __device__ inline __nv_bfloat16 __float2bfloat16_rn(float a) {
  return {a};
}
__host__ __device__ inline float __bfloat162float(__nv_bfloat16 a) {
  return a;
}
__host__ __device__ inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 h) {
  return static_cast<__nv_bfloat16_raw>(h).x;
}
__host__ __device__ inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short i) {
  return __nv_bfloat16_raw{i};
}
__host__ __device__ inline __nv_bfloat162 make_bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) {
  return {x, y};
}
__host__ __device__ inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 a, __nv_bfloat16 b) {
  return {a, b};
}
__host__ __device__ inline __nv_bfloat162 __float2bfloat162_rn(float a) {
  return {a, a};
}
__host__ __device__ inline __nv_bfloat162 __floats2bfloat162_rn(float a, float b) {
  return {a, b};
}
__host__ __device__ inline __nv_bfloat162 __float22bfloat162_rn(float2 a) {
  return {a.x, a.y};
}
__host__ __device__ inline float2 __bfloat1622float2(__nv_bfloat162 a) {
  return {a.x, a.y};
}
__host__ __device__ inline __nv_bfloat16 __low2bfloat16(__nv_bfloat162 a) {
  return a.x;
}
__host__ __device__ inline __nv_bfloat16 __high2bfloat16(__nv_bfloat162 a) {
  return a.y;
}
__host__ __device__ inline float __low2float(__nv_bfloat162 a) {
  return a.x;
}
__host__ __device__ inline float __high2float(__nv_bfloat162 a) {
  return a.y;
}
