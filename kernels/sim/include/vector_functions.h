// make_float4(x, y, z, w) and its kin: CUDA C++ Programming Guide, "Built-in Vector Types".
#pragma once

#include "kernels/sim/include/vector_types.h"

#define HEDDLE_CUDA_MAKERS(type, element)                                     \
  inline type##1 make_##type##1(element x) {                                  \
    return {x};                                                               \
  }                                                                           \
  inline type##2 make_##type##2(element x, element y) {                       \
    return {x, y};                                                            \
  }                                                                           \
  inline type##3 make_##type##3(element x, element y, element z) {            \
    return {x, y, z};                                                         \
  }                                                                           \
  inline type##4 make_##type##4(element x, element y, element z, element w) { \
    return {x, y, z, w};                                                      \
  }

HEDDLE_CUDA_MAKERS(char, signed char)
HEDDLE_CUDA_MAKERS(uchar, unsigned char)
HEDDLE_CUDA_MAKERS(short, short)
HEDDLE_CUDA_MAKERS(ushort, unsigned short)
HEDDLE_CUDA_MAKERS(int, int)
HEDDLE_CUDA_MAKERS(uint, unsigned int)
HEDDLE_CUDA_MAKERS(longlong, long long)
HEDDLE_CUDA_MAKERS(ulonglong, unsigned long long)
HEDDLE_CUDA_MAKERS(float, float)
HEDDLE_CUDA_MAKERS(double, double)
#undef HEDDLE_CUDA_MAKERS
