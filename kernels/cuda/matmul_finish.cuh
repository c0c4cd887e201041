// The two small kernels behind a matrix product.
//
// split_sum: z = the parts of K, added in their order; then the epilogue, as the main kernel would have done it. A warp takes 16 rows of 64 columns.
// Bytes: 4 m n for each part, mostly from L2, and the epilogue's.
// add_column_parts: every column's partial sums, added in the order of their rows of tiles. A block takes 32 columns, its warps every 16th part, and
// their sums are added in order.
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
  epilogue.template store_sums<kConfig.rows, Rows::kLanesPerRow>(first_row);
}

struct ColumnPartsParams {
  const float* partials;  // (parts, row)
  int64_t row;
  int parts, n;
  void* out;  // (n) f32 or bf16
  bool f32_out, accumulate;
};

template <class Config>
__global__ void __launch_bounds__(Config::value.threads) add_column_parts_kernel(const ColumnPartsParams p) {
  constexpr int kWarps = Config::value.threads / 32;
  HEDDLE_SHARED(float, sums, [kWarps][32]);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int column = static_cast<int>(blockIdx.x) * 32 + lane;
  float sum = 0;
  if (column < p.n) {
#pragma unroll 4
    for (int part = warp; part < p.parts; part += kWarps) sum += p.partials[part * p.row + column];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp != 0 || column >= p.n) return;
  sum = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) sum += sums[i][lane];
  const auto leave = [&](auto* out) { *out = from_float<std::remove_pointer_t<decltype(out)>>(p.accumulate ? to_float(*out) + sum : sum); };
  if (p.f32_out) {
    leave(static_cast<float*>(p.out) + column);
  } else {
    leave(static_cast<bf16*>(p.out) + column);
  }
}

}  // namespace heddle::kernels::cuda
