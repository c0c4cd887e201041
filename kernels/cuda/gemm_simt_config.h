// Tiles of the matrix product without tensor cores, chosen on the host by the shape alone.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "kernels/cuda/matmul_finish_config.h"

namespace heddle::kernels::cuda {

struct GemmSimtConfig {
  int block_m = 128, block_n = 128, block_k = 8;  // tile of a block; block_k is 8 or 16
  int thread_m = 8;                               // rows of a thread, 4 or 8; it has 8 neighbouring columns
  int blocks = 2;                                 // on a multiprocessor at least
  bool bf16_operands = false;

  static constexpr int kWarpN = 64;  // 8 lanes of 8 columns; 4 lanes of thread_m rows
  constexpr int warp_m() const { return 4 * thread_m; }
  constexpr int threads() const { return 32 * (block_m / warp_m()) * (block_n / kWarpN); }
  constexpr int stage_floats() const { return (block_m + block_n) * block_k; }  // A and B of a step
  // The epilogue stages 16 rows of a warp in f32, padded as StagedRows says.
  constexpr int staging_floats() const { return threads() / 32 * 16 * (kWarpN + 8); }
  constexpr int shared_floats() const { return std::max(2 * stage_floats(), staging_floats()); }
};

// Large products, and few rows (decoding).
inline constexpr std::array<GemmSimtConfig, 2> kGemmSimtTiles = {{
    {128, 128, 8, 8, 2},
    {32, 128, 16, 4, 3},
}};

constexpr size_t choose_gemm_simt(int64_t m) {
  return m <= 32 ? 1 : 0;
}

// A multiprocessor multiplies 128 times a clock; memory brings about 1.4 kB in it.
constexpr int gemm_simt_splits(int64_t m, int64_t n, int64_t k) {
  const GemmSimtConfig& tile = kGemmSimtTiles[choose_gemm_simt(m)];
  return matmul_splits(m, n, k, {tile.block_m, tile.block_n, tile.block_k, int64_t{tile.block_m} * tile.block_n * tile.block_k / 128 * 1400});
}

}  // namespace heddle::kernels::cuda
