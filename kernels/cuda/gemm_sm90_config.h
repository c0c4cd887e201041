// Tiles of the Hopper matrix product, chosen on the host.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/arch/fragments.h"
#include "kernels/cuda/matmul_finish_config.h"

namespace heddle::kernels::cuda {

// What leaves a block; all but `whole` by TMA, to rows that start at multiples of 16 bytes.
enum class GemmOut : uint8_t {
  bf16,     // C = A B + bias
  f32,      // C = A B, or the parts of it that a cut along K leaves in scratch
  f32_add,  // C += A B, by one reduction in L2 for each element
  whole,    // everything that epilogue.cuh can do
  gated,    // silu(gate) up in bf16, B being the rows of gate and, as many further on, those of up; and gate and up when wanted
};

struct GemmSm90Config {
  int block_m = 128, block_n = 256;  // tile of a block; multiples of 64 (block_m of 64 * consumers)
  int stages = 4;                    // tiles of A and B in shared memory
  int consumers = 2;                 // warpgroups that multiply; one more only moves data
  int cluster = 1;                   // blocks along M that share each tile of B by multicast: 1 or 2
  Major a = Major::k;                // k: A is stored (M, K); mn: (K, M)
  Major b = Major::k;                // k: B is stored (N, K); mn: (K, N)
  GemmOut out = GemmOut::bf16;

  static constexpr int kBlockK = 64;            // 64 bf16 are 128 bytes, one row of the swizzle
  static constexpr int kPanelBytes = 64 * 128;  // 64 rows of 128 bytes: what an epilogue store and a wgmma operand of 64 x 64 take
  static constexpr int kPanelsInFlight = 2;     // per consumer, in the epilogue
  static constexpr int kRowsPerPart = 16;       // of GemmOut::whole: rows behind one partial sum of columns, those of a warp in a wgmma

  constexpr int threads() const { return 128 * (1 + consumers); }
  constexpr int rows_per_consumer() const { return block_m / consumers; }
  constexpr int a_bytes() const { return block_m * kBlockK * 2; }
  constexpr int b_bytes() const { return block_n * kBlockK * 2; }
  constexpr int stage_bytes() const { return a_bytes() + b_bytes(); }
  constexpr int columns() const { return out == GemmOut::gated ? block_n / 2 : block_n; }  // of the result, in a tile
  constexpr int panel_columns() const { return out == GemmOut::bf16 || out == GemmOut::gated ? 64 : 32; }
  constexpr int staging_bytes() const { return consumers * kPanelsInFlight * kPanelBytes; }
  static constexpr int kBarrierBytes = 16;  // the two barriers of a stage
  constexpr int shared_bytes() const { return stages * (stage_bytes() + kBarrierBytes) + staging_bytes(); }
  // Registers of a thread after setmaxnreg. Their sum over the warpgroups is what the launch bounds give to all alike: 65536 / threads.
  constexpr int producer_registers() const { return consumers == 1 ? 56 : consumers == 2 ? 40 : 32; }
  constexpr int consumer_registers() const { return consumers == 1 ? 256 : consumers == 2 ? 232 : 160; }
};

inline constexpr int kMaxSharedSm90 = 227 * 1024;

// The tiles that are built, for the three products of training: see gemm_sm90.cu.
inline constexpr std::array<GemmSm90Config, 3> kGemmSm90Tiles = {{
    {128, 256, 4, 2, 2},
    {128, 256, 4, 2, 1},
    {128, 128, 6, 2, 1},
}};

// The index in kGemmSm90Tiles for an (m, n) product, K in `splits` parts, on `sms` multiprocessors: 128 x 256 in pairs unless the smaller tile saves
// a wave. The bits of a result are the same with each.
constexpr int choose_gemm_sm90(int64_t m, int64_t n, int sms, int splits) {
  const auto up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t waves_256 = up(up(m, 128) * up(n, 256) * splits, sms), waves_128 = up(up(m, 128) * up(n, 128) * splits, sms);
  if (waves_128 < 2 * waves_256) return 2;
  return up(m, 128) % 2 == 0 ? 0 : 1;
}

// Counted in the larger tile. A multiprocessor of GH100 multiplies 2048 times a clock; its memory brings about 2 kB in it.
constexpr int gemm_sm90_splits(int64_t m, int64_t n, int64_t k) {
  constexpr int64_t kClocks = 128 * 256 * 64 / 2048;
  return matmul_splits(m, n, k, {128, 256, 64, kClocks * 2000, 8, 7});
}

}  // namespace heddle::kernels::cuda
