// Small kernels that exercise the machine itself.
#include "tests/sim/core_kernels.h"

#include "kernels/arch/platform.h"

namespace heddle::test {

namespace {

__device__ float warp_sum(float value) {
  for (int offset = 16; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  return value;
}

// sums[b] = sum of x over block b's 256 elements
__global__ void block_sum_kernel(const float* x, float* sums) {
  HEDDLE_SHARED(float, partial, [8]);
  const unsigned warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float mine = warp_sum(x[blockIdx.x * blockDim.x + threadIdx.x]);
  if (lane == 0) partial[warp] = mine;
  __syncthreads();
  if (warp == 0) {
    const float total = warp_sum(lane < 8 ? partial[lane] : 0.0f);
    if (lane == 0) sums[blockIdx.x] = total;
  }
}

}  // namespace

void block_sum(const float* x, float* sums, int blocks) {
  HEDDLE_LAUNCH(block_sum_kernel, static_cast<unsigned>(blocks), 256, 0, Stream{}, x, sums);
}

}  // namespace heddle::test
