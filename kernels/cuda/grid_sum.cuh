// Sum, or sum of squares, of a flat tensor in one launch: every block writes its partial sum, the block that comes last adds them up.
//
// "Last" is decided by a counter (the pattern of CUDA's threadFenceReduction sample). Whichever block it is, it adds the same numbers in the same
// order, and the number of blocks follows from the length alone, so the result has the same bits on every run and every device.
#pragma once

#include "kernels/cuda/configured.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vec.cuh"

namespace heddle::kernels::cuda {

struct GridSumConfig {
  int threads = 256;
  int vectors = 4;         // 16-byte loads in flight per thread
  int most_blocks = 1024;  // fits 132 SMs at eight blocks each

  constexpr int64_t elements_per_pass() const { return int64_t{8} * threads * vectors; }  // of one block
  constexpr int blocks(int64_t n) const {
    const int64_t wanted = (n + elements_per_pass() - 1) / elements_per_pass();
    return static_cast<int>(wanted < 1 ? 1 : wanted < most_blocks ? wanted : most_blocks);
  }
};

struct GridSumParams {
  const bf16* x;  // (n), 16-byte aligned
  int64_t n;
  float* partial;     // (blocks)
  uint32_t* arrived;  // one counter, zero before and after
  float* out;         // one value
  float scale;        // of the sum
  bool accumulate;    // out += instead of =
};

template <class Config, bool kSquares>
__global__ void __launch_bounds__(Config::value.threads) grid_sum_kernel(const GridSumParams p) {
  constexpr GridSumConfig kConfig = Config::value;
  constexpr int kThreads = kConfig.threads, kVectors = kConfig.vectors;
  HEDDLE_SHARED(float, partial, [2][kThreads / 32]);
  HEDDLE_SHARED(bool, is_last, [1]);
  const int thread = static_cast<int>(threadIdx.x);

  // Eight sums a thread, one per place in the vector: short chains of additions, and each is kThreads * blocks times shorter than the tensor.
  float sums[8] = {};
  const int64_t step = kConfig.elements_per_pass() * gridDim.x;
  for (int64_t base = kConfig.elements_per_pass() * blockIdx.x; base < p.n; base += step) {
    uint4 packed[kVectors];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const int64_t at = base + (i * kThreads + thread) * 8;
      packed[i] = at + 8 <= p.n ? ptx::ld128_read_once(p.x + at) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      float values[8];
      thread::unpack(packed[i], values);
#pragma unroll
      for (int e = 0; e < 8; ++e) sums[e] += kSquares ? values[e] * values[e] : values[e];
    }
  }
  const int64_t tail = p.n / 8 * 8 + thread;  // fewer than eight elements are left over
  if (blockIdx.x == 0 && tail < p.n) {
    const float value = to_float(p.x[tail]);
    sums[0] += kSquares ? value * value : value;
  }

  const float own = ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
  const float total = block::sum<kThreads>(own, partial[0]);
  if (thread == 0) {
    p.partial[blockIdx.x] = total;
    // Release: the partial sum is visible to whoever reads the raised counter. Acquire: the last block sees all of them.
    is_last[0] = ptx::atom_add_acq_rel_gpu(p.arrived, 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!is_last[0]) return;

  float rest = 0;
  for (int i = thread; i < static_cast<int>(gridDim.x); i += kThreads) rest += p.partial[i];
  rest = block::sum<kThreads>(rest, partial[1]);
  if (thread == 0) {
    const float result = rest * p.scale;
    p.out[0] = p.accumulate ? p.out[0] + result : result;
    *p.arrived = 0;  // ready for the next launch
  }
}

template <GridSumConfig kConfig, bool kSquares>
void launch_grid_sum(const GridSumParams& p, Stream stream) {
  HEDDLE_LAUNCH((grid_sum_kernel<Configured<kConfig>, kSquares>), static_cast<unsigned>(kConfig.blocks(p.n)), kConfig.threads, 0, stream, p);
}

}  // namespace heddle::kernels::cuda
