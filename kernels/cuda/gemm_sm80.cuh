// C (M, N) = A B with the epilogue of kernels/api/matmul.h, for Ampere: bf16 operands, fp32 accumulation on mma.sync, tiles streamed through a ring
// of shared-memory stages by cp.async.
//
//   Y = X W^T      A = X  (M, K)  k-major    B = W  (N, K)  k-major       forward
//   dX = dY W      A = dY (M, K)  k-major    B = W  (K, N)  mn-major      ldmatrix.trans turns B
//   dW = dY^T X    A = dY (K, M)  mn-major   B = X  (K, N)  mn-major      ldmatrix.trans turns both
//
// The pipeline, in steps of one tile along K:
//   stages - 1 tiles are on their way before the loop. In tile kt, at its first 16 columns, the copy of tile kt + stages - 1 starts, into the stage
//   that tile kt - 1 has left; at its last 16 columns the block waits for tile kt + 1. Fragments of the next 16 columns are loaded before the mma of
//   these.
#pragma once

#include "kernels/cuda/configured.h"
#include "kernels/cuda/copy_ring.cuh"
#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/gemm_sm80_config.h"
#include "kernels/cuda/matmul_layout.h"
#include "kernels/cuda/matmul_plan.cuh"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/tile_raster.h"
#include "kernels/cuda/vec.cuh"

namespace heddle::kernels::cuda {

struct GemmSm80Params {
  const bf16* a;  // (M, K) or (K, M)
  const bf16* b;  // (N, K) or (K, N)
  int m, n, k;
  int64_t lda, ldb;  // elements between rows, multiples of 8
  int splits;        // parts of K that different blocks compute
  int64_t split_stride;
  MatmulEpilogue epilogue;  // of the first part
};

// The fragments of one k16 step of a warp's tile.
template <GemmSm80Config kConfig>
struct GemmFragments {
  static constexpr int kM = kConfig.warp_m / 16, kN = kConfig.warp_n / 16;
  uint32_t a[kM][4];  // (m16, k16)
  uint32_t b[kN][4];  // (k16, n8) twice
};

// warp. Loads k16 step `step` of the warp's rows of A and B from a stage.
template <GemmSm80Config kConfig>
__device__ __forceinline__ void load_fragments(GemmFragments<kConfig>& out, uint32_t stage, int warp_row, int warp_column, int step) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const uint32_t tile_a = stage, tile_b = stage + kConfig.a_elements() * 2;
#pragma unroll
  for (int i = 0; i < kConfig.warp_m / 16; ++i) {
    if constexpr (kConfig.a == Major::k) {
      const Element at = matrix_8x8::address_a(lane);
      ptx::ldmatrix_x4(out.a[i], tile_a + SwizzledTile<kConfig.block_k>::at(warp_row + i * 16 + at.row, step * 2 + at.column / 8));
    } else {
      const Element at = matrix_8x8::address_a_transposed(lane);
      ptx::ldmatrix_x4_trans(out.a[i], tile_a + SwizzledTile<kConfig.block_m>::at(step * 16 + at.row, (warp_row + i * 16 + at.column) / 8));
    }
  }
#pragma unroll
  for (int j = 0; j < kConfig.warp_n / 16; ++j) {
    if constexpr (kConfig.b == Major::k) {
      const Element at = matrix_8x8::address_b_pair(lane);
      ptx::ldmatrix_x4(out.b[j], tile_b + SwizzledTile<kConfig.block_k>::at(warp_column + j * 16 + at.row, step * 2 + at.column / 8));
    } else {
      const Element at = matrix_8x8::address_b_pair_transposed(lane);
      ptx::ldmatrix_x4_trans(out.b[j], tile_b + SwizzledTile<kConfig.block_n>::at(step * 16 + at.row, (warp_column + j * 16 + at.column) / 8));
    }
  }
}

// warp. Adds one k16 step. Columns run in serpentine order, so that neighbouring mma share an operand.
template <GemmSm80Config kConfig>
__device__ __forceinline__ void multiply(float (&acc)[kConfig.warp_m / 16][kConfig.warp_n / 8][4], const GemmFragments<kConfig>& in) {
  constexpr int kColumns = kConfig.warp_n / 8;
#pragma unroll
  for (int i = 0; i < kConfig.warp_m / 16; ++i) {
#pragma unroll
    for (int jj = 0; jj < kColumns; ++jj) {
      const int j = i % 2 == 0 ? jj : kColumns - 1 - jj;
      ptx::mma_m16n8k16_bf16(acc[i][j], in.a[i], in.b[j / 2][j % 2 * 2], in.b[j / 2][j % 2 * 2 + 1]);
    }
  }
}

// warp. Hands its tile of C to the epilogue, some rows at a time: accumulators to the warp's own staging rows, from there eight columns a lane.
template <GemmSm80Config kConfig>
__device__ __forceinline__ void finish_tile(const float (&acc)[kConfig.warp_m / 16][kConfig.warp_n / 8][4], uint32_t staging,
                                            ColumnEpilogue<bf16>& epilogue, int first_row) {
  using Rows = StagedRows<kConfig.warp_n>;
  constexpr int kStaged = kConfig.kStagedRows / 16;
  static_assert(kConfig.warp_m % kConfig.kStagedRows == 0);
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int first = 0; first < kConfig.warp_m / 16; first += kStaged) {
    ptx::warp_sync();  // the rows before have been read
#pragma unroll
    for (int i = 0; i < kStaged; ++i) {
#pragma unroll
      for (int j = 0; j < kConfig.warp_n / 8; ++j) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const Element at = mma_m16n8k16::d(lane, 2 * half);
          const float(&d)[4] = acc[first + i][j];
          ptx::st64_shared(staging + (i * 16 + at.row) * Rows::kRowBytes + (j * 8 + at.column) * 4,
                           make_uint2(__float_as_uint(d[2 * half]), __float_as_uint(d[2 * half + 1])));
        }
      }
    }
    ptx::warp_sync();
    finish_staged<kConfig.kStagedRows, Rows, 4>(epilogue, staging, first_row + first * 16);
  }
  epilogue.template store_sums<kConfig.warp_m, Rows::kPerRow>(first_row);
}

template <class Config>
__global__ void __launch_bounds__(Config::value.threads()) gemm_sm80_kernel(const GemmSm80Params p) {
  constexpr GemmSm80Config kConfig = Config::value;
  constexpr int kSteps = kConfig.block_k / 16;
  constexpr bool kAk = kConfig.a == Major::k, kBk = kConfig.b == Major::k;
  static_assert(kSteps >= 2);
  const uint32_t shared = ptx::smem_u32(dyn_smem<std::byte>());  // (STAGE, A then B)

  const TileAt tile = tile_at(static_cast<int>(blockIdx.x), ceil_div(p.m, kConfig.block_m), ceil_div(p.n, kConfig.block_n), kRasterRows);
  const int m0 = tile.m * kConfig.block_m, n0 = tile.n * kConfig.block_n;
  const int k_part = ceil_div(ceil_div(p.k, kConfig.block_k), p.splits) * kConfig.block_k;
  const int k0 = static_cast<int>(blockIdx.y) * k_part, k_end = min(k0 + k_part, p.k), k_tiles = ceil_div(k_end - k0, kConfig.block_k);
  AsyncTileLoader<kAk ? kConfig.block_m : kConfig.block_k, kAk ? kConfig.block_k : kConfig.block_m, kConfig.threads()> load_a(
      p.a, p.lda, kAk ? p.m : k_end, kAk ? k_end : p.m, kAk ? m0 : k0, kAk ? k0 : m0);
  AsyncTileLoader<kBk ? kConfig.block_n : kConfig.block_k, kBk ? kConfig.block_k : kConfig.block_n, kConfig.threads()> load_b(
      p.b, p.ldb, kBk ? p.n : k_end, kBk ? k_end : p.n, kBk ? n0 : k0, kBk ? k0 : n0);
  int copied = 0;
  const auto copy_tile = [&](uint32_t stage) {
    if (copied++ >= k_tiles) return;
    load_a.load(stage);
    load_a.advance(kAk ? 0 : kConfig.block_k, kAk ? kConfig.block_k : 0);
    load_b.load(stage + kConfig.a_elements() * 2);
    load_b.advance(kBk ? 0 : kConfig.block_k, kBk ? kConfig.block_k : 0);
  };

  const int warp = static_cast<int>(threadIdx.x) / 32, warps_n = kConfig.block_n / kConfig.warp_n;
  const int warp_row = warp / warps_n * kConfig.warp_m, warp_column = warp % warps_n * kConfig.warp_n;
  float acc[kConfig.warp_m / 16][kConfig.warp_n / 8][4] = {};
  GemmFragments<kConfig> fragments[2];

  CopyRing<kConfig.stages, kConfig.stage_elements() * 2> ring(shared);
  ring.begin(copy_tile);
  if (k_tiles > 0) load_fragments<kConfig>(fragments[0], ring.stage(), warp_row, warp_column, 0);
  for (int k_tile = 0; k_tile < k_tiles; ++k_tile) {
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      if (step + 1 < kSteps) {
        load_fragments<kConfig>(fragments[(step + 1) % 2], ring.stage(), warp_row, warp_column, step + 1);
      } else {
        ring.turn();
        if (k_tile + 1 < k_tiles) load_fragments<kConfig>(fragments[0], ring.next_stage(), warp_row, warp_column, 0);
      }
      if (step == 0) ring.refill(copy_tile);
      multiply<kConfig>(acc, fragments[step % 2]);
    }
    ring.advance();
  }

  // The loop's last barrier came after every copy and every read: the stages are free for the epilogue.
  MatmulEpilogue to = p.epilogue;
  to.c = static_cast<float*>(to.c) + static_cast<int>(blockIdx.y) * p.split_stride;
  ColumnEpilogue<bf16> epilogue(to, n0 + warp_column + StagedRows<kConfig.warp_n>::own_column());
  finish_tile<kConfig>(acc, shared + warp * kConfig.kStagedRows * kConfig.epilogue_row_bytes(), epilogue, m0 + warp_row);
}

inline GemmSm80Params gemm_sm80_params(const MatmulArgs& args, const MatmulTarget& target, int splits) {
  auto p = matmul_operands<GemmSm80Params>(args);
  p.splits = splits;
  p.split_stride = target.split_stride;
  p.epilogue = target.epilogue;
  return p;
}

template <GemmSm80Config kConfig>
void launch_gemm_sm80(const GemmSm80Params& p, Stream stream) {
  static_assert(kConfig.shared_bytes() <= kMaxSharedSm80);
  const dim3 blocks(static_cast<unsigned>(ceil_div(p.m, kConfig.block_m) * ceil_div(p.n, kConfig.block_n)), static_cast<unsigned>(p.splits));
  HEDDLE_LAUNCH((gemm_sm80_kernel<Configured<kConfig>>), blocks, kConfig.threads(), kConfig.shared_bytes(), stream, p);
}

}  // namespace heddle::kernels::cuda
