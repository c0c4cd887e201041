// CUDA's built-in vector types and declaration keywords, for machines without the toolkit. Source: CUDA C++ Programming Guide, "Built-in Vector
// Types" (sizes and alignments) and "Function and Variable Specifiers" (keywords, which mean nothing to a host compiler).
#pragma once

#ifndef __host__
#define __host__
#endif
#ifndef __device__
#define __device__
#endif
#ifndef __global__
#define __global__
#endif
#ifndef __shared__
#define __shared__
#endif
#ifndef __constant__
#define __constant__
#endif
#ifndef __grid_constant__
#define __grid_constant__
#endif
#ifndef __launch_bounds__
#define __launch_bounds__(...)
#endif
#ifndef __cluster_dims__
#define __cluster_dims__(...)
#endif
#ifndef __forceinline__
#define __forceinline__ inline __attribute__((always_inline))
#endif
#ifndef __align__
#define __align__(n) __attribute__((aligned(n)))
#endif

// A vector of 1 to 4 elements: 2 and 4 elements are aligned to the whole vector (16 bytes at most), 1 and 3 like one element.
#define HEDDLE_CUDA_VECTORS(type, element)                                      \
  struct type##1 {                                                              \
    element x;                                                                  \
  };                                                                            \
  struct alignas(2 * sizeof(element)) type##2 {                                 \
    element x, y;                                                               \
  };                                                                            \
  struct type##3 {                                                              \
    element x, y, z;                                                            \
  };                                                                            \
  struct alignas(4 * sizeof(element) < 16 ? 4 * sizeof(element) : 16) type##4 { \
    element x, y, z, w;                                                         \
  };

HEDDLE_CUDA_VECTORS(char, signed char)
HEDDLE_CUDA_VECTORS(uchar, unsigned char)
HEDDLE_CUDA_VECTORS(short, short)
HEDDLE_CUDA_VECTORS(ushort, unsigned short)
HEDDLE_CUDA_VECTORS(int, int)
HEDDLE_CUDA_VECTORS(uint, unsigned int)
HEDDLE_CUDA_VECTORS(longlong, long long)
HEDDLE_CUDA_VECTORS(ulonglong, unsigned long long)
HEDDLE_CUDA_VECTORS(float, float)
HEDDLE_CUDA_VECTORS(double, double)
#undef HEDDLE_CUDA_VECTORS

// Grid, block and cluster sizes; what is left out is 1.
struct dim3 {
  unsigned int x, y, z;
  constexpr dim3(unsigned int vx = 1, unsigned int vy = 1, unsigned int vz = 1) : x(vx), y(vy), z(vz) {}
  constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
  constexpr operator uint3() const { return {x, y, z}; }
};
