// Generic copies between shared memory and global memory by all threads of the block.
#pragma once

#include "kernels/arch/ptx.h"

namespace heddle::test {

__device__ inline void fill_shared(uint32_t* shared, const uint32_t* from, uint32_t words) {
  for (uint32_t i = threadIdx.x; i < words; i += blockDim.x) shared[i] = from[i];
}
__device__ inline void set_shared(uint32_t* shared, uint32_t value, uint32_t words) {
  for (uint32_t i = threadIdx.x; i < words; i += blockDim.x) shared[i] = value;
}
__device__ inline void dump_shared(uint32_t* to, const uint32_t* shared, uint32_t words) {
  for (uint32_t i = threadIdx.x; i < words; i += blockDim.x) to[i] = shared[i];
}

}  // namespace heddle::test
