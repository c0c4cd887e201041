// Named barriers, which Ampere has too: see ptx_kernels.h.
#include "tests/sim/ptx_device.cuh"
#include "tests/sim/ptx_kernels.h"

namespace heddle::test {

__global__ void named_barriers(uint32_t* out, uint32_t rounds) {
  auto* shared = dyn_smem<uint32_t>();
  const uint32_t thread = threadIdx.x % 64;
  if (threadIdx.x < 64) {
    for (uint32_t r = 0; r < rounds; ++r) {
      if (r > 0) ptx::bar_sync(2, 128);
      shared[thread] = r * 100 + thread;
      ptx::bar_arrive(1, 128);
    }
    ptx::bar_arrive(3, 128);  // both sides arrive before either waits
    ptx::bar_sync(4, 128);
  } else if (threadIdx.x < 128) {
    for (uint32_t r = 0; r < rounds; ++r) {
      ptx::bar_sync(1, 128);
      out[r * 64 + thread] = shared[63 - thread];
      if (r + 1 < rounds) ptx::bar_arrive(2, 128);
    }
    ptx::bar_arrive(4, 128);
    ptx::bar_sync(3, 128);
  }
}

__global__ void one_barrier(uint32_t id, uint32_t threads) {
  ptx::bar_sync(id, threads);
}

}  // namespace heddle::test
