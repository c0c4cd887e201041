// What the attention kernels of tensor cores share: products of a warp's rows with tiles of shared memory, and how those rows leave.
//
// A warp owns 16 kM rows; tiles are SwizzledTile<kD>. Row (i, half) of a lane is 16 i + lane / 4 + 8 half.
#pragma once

#include "kernels/cuda/tile.cuh"

namespace heddle::kernels::cuda {

namespace warp {

// warp. threadIdx.x and the lane, by a shuffle that the compiler cannot see through: from a plain lane number it would work out the swizzled offsets
// of every step before the loop over tiles, keep them in registers, and spill.
__device__ __forceinline__ int thread_anew() {
  return ptx::shfl_idx(static_cast<int>(threadIdx.x), static_cast<int>(threadIdx.x));
}
__device__ __forceinline__ int lane_anew() {
  return thread_anew() & 31;
}

// warp. s (16 kM, 8 kN) = a (16 kM, D) b (8 kN, D)^T
template <int kD, int kM, int kN>
__device__ __forceinline__ void scores(float (&s)[kM][kN][4], uint32_t a, uint32_t b) {
  using Tile = SwizzledTile<kD>;
  const int lane = lane_anew();
  const Element at_a = matrix_8x8::address_a(lane), at_b = matrix_8x8::address_b_pair(lane);
#pragma unroll
  for (int i = 0; i < kM; ++i) {
#pragma unroll
    for (int j = 0; j < kN; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[i][j][e] = 0;
    }
  }
#pragma unroll
  for (int step = 0; step < kD / 16; ++step) {
    uint32_t rows[kM][4], columns[2][4];
#pragma unroll
    for (int i = 0; i < kM; ++i) ptx::ldmatrix_x4(rows[i], a + Tile::at(i * 16 + at_a.row, step * 2 + at_a.column / 8));
    ptx::ldmatrix_x4(columns[0], b + Tile::at(at_b.row, step * 2 + at_b.column / 8));
#pragma unroll
    for (int j = 0; j < kN / 2; ++j) {
      if (j + 1 < kN / 2) ptx::ldmatrix_x4(columns[(j + 1) % 2], b + Tile::at((j + 1) * 16 + at_b.row, step * 2 + at_b.column / 8));
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        ptx::mma_m16n8k16_bf16(s[i][2 * j], rows[i], columns[j % 2][0], columns[j % 2][1]);
        ptx::mma_m16n8k16_bf16(s[i][2 * j + 1], rows[i], columns[j % 2][2], columns[j % 2][3]);
      }
    }
  }
}

// warp. sum (16 kM, D) += p (16 kM, 8 kN) b (8 kN, D), p rounded to bf16. The accumulators of two neighbouring n8 groups are the A operand of one k16
// step as they stand.
template <int kD, int kM, int kN>
__device__ __forceinline__ void add_product(float (&sum)[kM][kD / 8][4], const float (&p)[kM][kN][4], uint32_t b) {
  using Tile = SwizzledTile<kD>;
  constexpr int kPairs = kD / 16;
  const Element at_b = matrix_8x8::address_b_pair_transposed(lane_anew());
#pragma unroll
  for (int step = 0; step < kN / 2; ++step) {
    uint32_t rows[kM][4], columns[2][4];
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float(&pair)[4] = p[i][2 * step + r / 2];
        rows[i][r] = ptx::cvt_bf16x2(pair[r % 2 * 2], pair[r % 2 * 2 + 1]);
      }
    }
    ptx::ldmatrix_x4_trans(columns[0], b + Tile::at(step * 16 + at_b.row, at_b.column / 8));
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      if (j + 1 < kPairs) ptx::ldmatrix_x4_trans(columns[(j + 1) % 2], b + Tile::at(step * 16 + at_b.row, (j + 1) * 2 + at_b.column / 8));
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        ptx::mma_m16n8k16_bf16(sum[i][2 * j], rows[i], columns[j % 2][0], columns[j % 2][1]);
        ptx::mma_m16n8k16_bf16(sum[i][2 * j + 1], rows[i], columns[j % 2][2], columns[j % 2][3]);
      }
    }
  }
}

// warp. The first `valid` rows of `to`, `stride` elements apart, = rows times their factors as bf16: by way of `staging`, a tile of 16 kM rows that
// is the warp's own, so that whole 16-byte chunks go to memory.
template <int kD, int kM>
__device__ __forceinline__ void store_rows(bf16* to, int64_t stride, int valid, const float (&rows)[kM][kD / 8][4], const float (&factor)[kM][2],
                                           std::byte* staging) {
  using Tile = SwizzledTile<kD>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  ptx::warp_sync();  // every lane has read what was there
#pragma unroll
  for (int i = 0; i < kM; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = i * 16 + mma_m16n8k16::d(lane, 2 * half).row;
#pragma unroll
      for (int j = 0; j < kD / 8; ++j) {
        *reinterpret_cast<uint32_t*>(staging + Tile::at(row, j) + lane % 4 * 4) =
            ptx::cvt_bf16x2(rows[i][j][2 * half] * factor[i][half], rows[i][j][2 * half + 1] * factor[i][half]);
      }
    }
  }
  ptx::warp_sync();
  const uint32_t tile = ptx::smem_u32(staging);
#pragma unroll
  for (int i = 0; i < kM * Tile::kChunks / 2; ++i) {
    const int chunk = i * 32 + lane, row = chunk / Tile::kChunks, column = chunk % Tile::kChunks;
    if (row < valid) ptx::st128(to + row * stride + column * 8, ptx::ld128_shared(tile + Tile::at(row, column)));
  }
}

}  // namespace warp
}  // namespace heddle::kernels::cuda
