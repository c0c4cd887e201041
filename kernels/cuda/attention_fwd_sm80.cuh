// FlashAttention-2 forward for Ampere (Dao 2023, Algorithm 1) on mma.sync and cp.async: see kernels/api/attention.h for what it computes.
//
// A block owns block_m queries of one head and walks the key tiles right to left, so that the tiles with a diagonal come first. Each of its warps
// owns whole rows: scores S, probabilities P and output O never leave registers, and the row maximum needs four lanes only. Copies hide behind
// arithmetic:
//
//     V_n loads while S = Q K_n^T;     K_{n-1} loads while softmax and O += P V_n
#pragma once

#include "kernels/cuda/attention_fwd_sm80_config.h"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_views.cuh"
#include "kernels/cuda/configured.h"

namespace heddle::kernels::cuda {

struct AttentionFwdParams {
  HeadsView<const bf16> q, k, v;  // q (B, T, H, D); k, v (B, S, Hkv, D); rows at multiples of 16 bytes
  HeadsView<bf16> out;            // (B, T, H, D)
  RowsView lse;                   // (B, H, T) or null
  AttentionMask mask;
  int group;    // query heads per KV head
  float scale;  // > 0
  Fault* fault;
};

// What a warp keeps of its rows. Row (i, half) of a lane is 16 i + lane / 4 + 8 half; maxima are equal in the four lanes that share a row, sums
// partial.
template <AttentionFwdSm80Config kConfig>
struct SoftmaxRows {
  static constexpr int kM = kConfig.warp_m() / 16, kN = kConfig.block_n / 8, kD = kConfig.head_dim / 8;
  float highest[kM][2], sum[kM][2] = {};  // of unscaled scores

  __device__ __forceinline__ SoftmaxRows() {
#pragma unroll
    for (int i = 0; i < kM; ++i) highest[i][0] = highest[i][1] = -INFINITY;
  }

  // warp. Replaces scores by probabilities relative to the new maxima, and rescales what was accumulated before.
  __device__ __forceinline__ void update(float (&s)[kM][kN][4], float (&o)[kM][kD][4], float scale_log2) {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        float top = highest[i][half];
#pragma unroll
        for (int j = 0; j < kN; ++j) top = fmaxf(top, fmaxf(s[i][j][2 * half], s[i][j][2 * half + 1]));
        top = fmaxf(top, ptx::shfl_bfly(top, 1));
        top = fmaxf(top, ptx::shfl_bfly(top, 2));
        const float shift = top == -INFINITY ? 0.0f : top * scale_log2;  // no key seen yet: all probabilities become 0, not NaN
        const float correction = ptx::ex2(highest[i][half] * scale_log2 - shift);
        highest[i][half] = top;
        float total = 0;
#pragma unroll
        for (int j = 0; j < kN; ++j) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            s[i][j][e] = ptx::ex2(s[i][j][e] * scale_log2 - shift);
            total += s[i][j][e];
          }
        }
        sum[i][half] = sum[i][half] * correction + total;
#pragma unroll
        for (int d = 0; d < kD; ++d) {
          o[i][d][2 * half] *= correction;
          o[i][d][2 * half + 1] *= correction;
        }
      }
    }
  }
};

// warp. -inf for keys that a row does not see. row: the warp's first query; key: the tile's first key.
template <AttentionFwdSm80Config kConfig>
__device__ __forceinline__ void mask_scores(float (&s)[kConfig.warp_m() / 16][kConfig.block_n / 8][4], const AttentionMask& mask, int batch, int row,
                                            int key) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kConfig.warp_m() / 16; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = min(row + i * 16 + mma_m16n8k16::d(lane, 2 * half).row, mask.queries - 1);  // rows past the end repeat the last one
      const int last = mask.last_key(t), first = mask.first_key(batch, t);
#pragma unroll
      for (int j = 0; j < kConfig.block_n / 8; ++j) {
#pragma unroll
        for (int e = 2 * half; e < 2 * half + 2; ++e) {
          const int at = key + j * 8 + mma_m16n8k16::d(lane, e).column;
          if (at > last || at < first) s[i][j][e] = -INFINITY;
        }
      }
    }
  }
}

template <class Config>
__global__ void __launch_bounds__(Config::value.threads()) attention_fwd_sm80_kernel(const AttentionFwdParams p) {
  constexpr AttentionFwdSm80Config kConfig = Config::value;
  constexpr int kD = kConfig.head_dim, kBlockM = kConfig.block_m, kBlockN = kConfig.block_n, kWarpM = kConfig.warp_m();
  std::byte* shared = dyn_smem<std::byte>();
  const uint32_t tile_q = ptx::smem_u32(shared);      // (BLK_M, D)
  const uint32_t tile_k = tile_q + kBlockM * kD * 2;  // (BLK_N, D)
  const uint32_t tile_v = tile_k + kBlockN * kD * 2;  // (BLK_N, D)

  const int t0 = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kBlockM;  // the tiles with most keys first
  const int head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z);
  const int rows = min(kBlockM, p.mask.queries - t0);
  if (head == 0) {
    for (int row = static_cast<int>(threadIdx.x); row < rows; row += kConfig.threads()) p.mask.note_fault(p.fault, batch, t0 + row);
  }
  const FirstKeys first = warp::first_keys<kBlockM>(p.mask, batch, t0);
  const KeyTiles tiles = key_tiles(p.mask.last_key(t0), rows, p.mask.keys, first.lowest, first.highest, kBlockN);
  // Registers are scarce: addresses are worked out anew for every tile instead of kept.
  const auto load_rows = [&](const HeadsView<const bf16>& from, int tile, uint32_t to) {
    AsyncTileLoader<kBlockN, kD, kConfig.threads()>(from.matrix(batch, head / p.group), from.row, p.mask.keys, kD, tile * kBlockN, 0).load(to);
    ptx::cp_async_commit();
  };
  AsyncTileLoader<kBlockM, kD, kConfig.threads()>(p.q.matrix(batch, head), p.q.row, p.mask.queries, kD, t0, 0).load(tile_q);
  load_rows(p.k, tiles.last - 1, tile_k);
  ptx::cp_async_wait<0>();
  __syncthreads();

  const int warp_row = static_cast<int>(threadIdx.x) / 32 * kWarpM;
  const uint32_t warp_q = tile_q + warp_row * kD * 2;
  const float scale_log2 = p.scale * kLog2E;
  SoftmaxRows<kConfig> softmax;
  float o[kWarpM / 16][kD / 8][4] = {};
  for (int tile = tiles.last - 1; tile >= tiles.first; --tile) {
    load_rows(p.v, tile, tile_v);
    float s[kWarpM / 16][kBlockN / 8][4];
    warp::scores<kD>(s, warp_q, tile_k);
    if (tile >= tiles.unmasked_last || tile < tiles.unmasked_first) mask_scores<kConfig>(s, p.mask, batch, t0 + warp_row, tile * kBlockN);
    ptx::cp_async_wait<0>();
    __syncthreads();  // V is here for all, K has been read by all
    if (tile > tiles.first) load_rows(p.k, tile - 1, tile_k);
    softmax.update(s, o, scale_log2);
    warp::add_product<kD>(o, s, tile_v);
    ptx::cp_async_wait<0>();
    __syncthreads();  // K is here, V has been read
  }

  const int lane = static_cast<int>(threadIdx.x) % 32;
  float inverse[kWarpM / 16][2];
#pragma unroll
  for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = softmax.sum[i][half];
      sum += ptx::shfl_bfly(sum, 1);
      sum += ptx::shfl_bfly(sum, 2);
      inverse[i][half] = 1.0f / sum;
      const int t = t0 + warp_row + i * 16 + mma_m16n8k16::d(lane, 2 * half).row;
      if (p.lse.data != nullptr && lane % 4 == 0 && t < p.mask.queries) p.lse.vector(batch, head)[t] = softmax.highest[i][half] * p.scale + logf(sum);
    }
  }
  // By way of the warp's own rows of the Q tile.
  warp::store_rows<kD>(p.out.matrix(batch, head) + (t0 + warp_row) * p.out.row, p.out.row, rows - warp_row, o, inverse, shared + warp_row * kD * 2);
}

template <AttentionFwdSm80Config kConfig>
void launch_attention_fwd_sm80(const AttentionFwdParams& p, int batches, int heads, Stream stream) {
  const int blocks = (p.mask.queries + kConfig.block_m - 1) / kConfig.block_m;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(heads), static_cast<unsigned>(batches));
  HEDDLE_LAUNCH((attention_fwd_sm80_kernel<Configured<kConfig>>), grid, kConfig.threads(), kConfig.shared_bytes(), stream, p);
}

// Picks the tile by the head dimension: 64, 96 or 128.
inline void launch_attention_fwd_sm80_for(const AttentionForwardArgs& args, Stream stream) {
  AttentionFwdParams p{};
  p.q = heads_view<const bf16>(args.q);
  p.k = heads_view<const bf16>(args.k);
  p.v = heads_view<const bf16>(args.v);
  p.out = heads_view<bf16>(args.out);
  p.lse = rows_view(args.lse);
  p.mask = attention_mask(args);
  p.group = static_cast<int>(args.q.size(2) / args.k.size(2));
  p.scale = args.scale;
  p.fault = args.fault;
  const int batches = static_cast<int>(args.q.size(0)), heads = static_cast<int>(args.q.size(2));
  switch (args.q.size(3)) {
    case 64: return launch_attention_fwd_sm80<kAttentionFwd64>(p, batches, heads, stream);
    case 96: return launch_attention_fwd_sm80<kAttentionFwd96>(p, batches, heads, stream);
    default: return launch_attention_fwd_sm80<kAttentionFwd128>(p, batches, heads, stream);
  }
}

}  // namespace heddle::kernels::cuda
