// Tiles of the Ampere matrix product, chosen on the host.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "kernels/arch/fragments.h"
#include "kernels/cuda/matmul_finish_config.h"

namespace heddle::kernels::cuda {

struct GemmSm80Config {
  int block_m = 128, block_n = 128, block_k = 32;  // tile of a block; block_k is 32 or 64
  int warp_m = 64, warp_n = 64;                    // tile of a warp
  int stages = 4;                                  // tiles of A and B in shared memory
  Major a = Major::k;                              // k: A is stored (M, K); mn: (K, M)
  Major b = Major::k;                              // k: B is stored (N, K); mn: (K, N)

  constexpr int warps() const { return block_m / warp_m * (block_n / warp_n); }
  constexpr int threads() const { return 32 * warps(); }
  constexpr int a_elements() const { return block_m * block_k; }
  constexpr int b_elements() const { return block_n * block_k; }
  constexpr int stage_elements() const { return a_elements() + b_elements(); }
  // The epilogue stages these rows of a warp's tile at a time, in f32, padded as StagedRows (epilogue.cuh) says.
  static constexpr int kStagedRows = 32;
  constexpr int epilogue_row_bytes() const { return (warp_n + 8) * 4; }
  constexpr int epilogue_bytes() const { return warps() * kStagedRows * epilogue_row_bytes(); }
  constexpr int shared_bytes() const {
    const int pipeline = stages * stage_elements() * 2;
    return pipeline > epilogue_bytes() ? pipeline : epilogue_bytes();
  }
};

inline constexpr int kMaxSharedSm80 = 163 * 1024;  // of a block on GA100

// The tiles that are built, for each pair of operand layouts: see gemm_sm80.cu.
inline constexpr std::array<GemmSm80Config, 2> kGemmSm80Tiles = {{
    {128, 256, 32, 64, 64, 4},
    {128, 128, 32, 64, 64, 4},
}};

// The index in kGemmSm80Tiles with the least work for the busiest of `sms` multiprocessors, K in `splits` parts. The larger tile reads less memory
// per product and wins ties. The bits of a result are the same with either.
constexpr int choose_gemm_sm80(int64_t m, int64_t n, int sms, int splits) {
  int best = 0;
  int64_t best_cost = INT64_MAX;
  for (int i = 0; i < static_cast<int>(kGemmSm80Tiles.size()); ++i) {
    const GemmSm80Config& tile = kGemmSm80Tiles[static_cast<size_t>(i)];
    const int64_t tiles = ((m + tile.block_m - 1) / tile.block_m) * ((n + tile.block_n - 1) / tile.block_n) * splits;
    const int64_t cost = (tiles + sms - 1) / sms * tile.block_m * tile.block_n;
    if (cost < best_cost) {
      best = i;
      best_cost = cost;
    }
  }
  return best;
}

// Counted in the smaller tile. A multiprocessor of GA100 multiplies 1024 times a clock; its memory brings about 1.4 kB in it.
constexpr int gemm_sm80_splits(int64_t m, int64_t n, int64_t k) {
  return matmul_splits(m, n, k, {128, 128, 32, 128 * 128 * 32 / 1024 * 1400});
}

}  // namespace heddle::kernels::cuda
