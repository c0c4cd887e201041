// Behind a matrix product cut along K: its parts, added in their order; then the epilogue, as the main kernel would have done it. A warp takes 16
// rows of 64 columns. Bytes: 4 m n for each part, mostly from L2, and the epilogue's.
#pragma once

#include "kernels/cuda/configured.h"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/matmul_finish_config.h"
#include "kernels/cuda/tile_raster.h"

namespace heddle::kernels::cuda {

struct SplitSumParams {
  const float* parts;  // (splits, m, row)
  int splits;
  int64_t row, split_stride;
  MatmulEpilogue epilogue;
};

template <class Config>
__global__ void __launch_bounds__(Config::value.threads) split_sum_kernel(const SplitSumParams p) {
  constexpr SplitSumConfig kConfig = Config::value;
  using T = std::conditional_t<kConfig.bf16_operands, bf16, float>;
  using Rows = StagedRows<kConfig.columns>;
  constexpr int kPasses = kConfig.rows / Rows::kRowsPerPass;
  const int unit = static_cast<int>(blockIdx.x) * (kConfig.threads / 32) + static_cast<int>(threadIdx.x) / 32;
  const int units_n = ceil_div(p.epilogue.n, kConfig.columns);
  const int first_row = unit / units_n * kConfig.rows, column = unit % units_n * kConfig.columns + Rows::own_column();
  if (first_row >= p.epilogue.m) return;  // the whole warp

  const bool inside = column < p.epilogue.n;
  float z[kPasses][8] = {};
  for (int split = 0; split < p.splits; ++split) {
#pragma unroll
    for (int pass = 0; pass < kPasses; ++pass) {
      const int row = first_row + pass * Rows::kRowsPerPass + Rows::own_row();
      float part_of_sum[8] = {};
      if (inside && row < p.epilogue.m) thread::load8(p.parts + split * p.split_stride + row * p.row + column, part_of_sum);
#pragma unroll
      for (int e = 0; e < 8; ++e) z[pass][e] += part_of_sum[e];
    }
  }
  ColumnEpilogue<T> epilogue(p.epilogue, column);
  typename ColumnEpilogue<T>::Ahead ahead[kPasses];
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) epilogue.fetch(first_row + pass * Rows::kRowsPerPass + Rows::own_row(), ahead[pass]);
#pragma unroll
  for (int pass = 0; pass < kPasses; ++pass) epilogue.finish(first_row + pass * Rows::kRowsPerPass + Rows::own_row(), z[pass], ahead[pass]);
  epilogue.template store_sums<kConfig.rows, Rows::kPerRow>(first_row);
}

}  // namespace heddle::kernels::cuda
