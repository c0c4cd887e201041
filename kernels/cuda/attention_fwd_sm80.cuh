// FlashAttention-2 forward for Ampere (Dao 2023, Algorithm 1) on mma.sync and cp.async: see kernels/api/attention.h for what it computes.
//
// A block owns block_m queries of one head and walks the key tiles right to left, so that the tiles with a diagonal come first. Each of its warps
// owns whole rows: scores S, probabilities P and output O never leave registers, and the row maximum needs four lanes only. Copies hide behind
// arithmetic:
//
//     V_n loads while S = Q K_n^T;     K_{n-1} loads while softmax and O += P V_n
#pragma once

#include "kernels/api/attention.h"
#include "kernels/cuda/attention_fwd_sm80_config.h"
#include "kernels/cuda/configured.h"
#include "kernels/cuda/tile.cuh"
#include "kernels/cuda/vec.cuh"

namespace heddle::kernels::cuda {

// A (B, N, H, D) tensor; strides in elements, multiples of 8; D is contiguous.
struct HeadsView {
  bf16* data;
  int64_t batch, row, head;
};

struct AttentionFwdParams {
  HeadsView q, k, v, out;         // q, out (B, T, H, D); k, v (B, S, Hkv, D)
  float* lse;                     // (B, H, T) or null
  const int32_t* document_start;  // (B, T) or null
  int queries, keys;              // T, S
  int group;                      // query heads per KV head
  float scale;                    // > 0
  int window;                     // <= 0: no limit
};

// The first key that query t of `batch` sees.
__device__ __forceinline__ int first_visible_key(const AttentionFwdParams& p, int batch, int t) {
  int first = 0;
  if (p.window > 0) first = max(first, p.keys - p.queries + t - p.window + 1);
  if (p.document_start != nullptr) first = max(first, p.document_start[static_cast<int64_t>(batch) * p.queries + t]);
  return first;
}

// What a warp keeps of its rows. Row (i, half) of a lane is 16 i + lane / 4 + 8 half; maxima are equal in the four lanes that share a row, sums
// partial.
template <AttentionFwdSm80Config kConfig>
struct SoftmaxRows {
  static constexpr int kM = kConfig.warp_m() / 16, kN = kConfig.block_n / 8, kD = kConfig.head_dim / 8;
  float highest[kM][2], sum[kM][2];  // of unscaled scores

  __device__ __forceinline__ SoftmaxRows() {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        highest[i][half] = -INFINITY;
        sum[i][half] = 0;
      }
    }
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

// warp. The lane, by a shuffle that the compiler cannot see through: from a plain lane number it would work out the swizzled offsets of every step
// before the loop over key tiles, keep them in registers, and spill.
__device__ __forceinline__ int lane_anew() {
  return ptx::shfl_idx(static_cast<int>(threadIdx.x), static_cast<int>(threadIdx.x)) & 31;
}

// warp. s (WARP_M, BLK_N) = q (WARP_M, D) k (BLK_N, D)^T
template <AttentionFwdSm80Config kConfig>
__device__ __forceinline__ void scores(float (&s)[kConfig.warp_m() / 16][kConfig.block_n / 8][4], uint32_t q, uint32_t k) {
  using Tile = SwizzledTile<kConfig.head_dim>;
  constexpr int kM = kConfig.warp_m() / 16, kPairs = kConfig.block_n / 16;
  const int lane = lane_anew();
  const Element at_q = matrix_8x8::address_a(lane), at_k = matrix_8x8::address_b_pair(lane);
#pragma unroll
  for (int i = 0; i < kM; ++i) {
#pragma unroll
    for (int j = 0; j < 2 * kPairs; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) s[i][j][e] = 0;
    }
  }
#pragma unroll
  for (int step = 0; step < kConfig.head_dim / 16; ++step) {
    uint32_t a[kM][4], b[2][4];
#pragma unroll
    for (int i = 0; i < kM; ++i) ptx::ldmatrix_x4(a[i], q + Tile::at(i * 16 + at_q.row, step * 2 + at_q.column / 8));
    ptx::ldmatrix_x4(b[0], k + Tile::at(at_k.row, step * 2 + at_k.column / 8));
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      if (j + 1 < kPairs) ptx::ldmatrix_x4(b[(j + 1) % 2], k + Tile::at((j + 1) * 16 + at_k.row, step * 2 + at_k.column / 8));
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        ptx::mma_m16n8k16_bf16(s[i][2 * j], a[i], b[j % 2][0], b[j % 2][1]);
        ptx::mma_m16n8k16_bf16(s[i][2 * j + 1], a[i], b[j % 2][2], b[j % 2][3]);
      }
    }
  }
}

// warp. o (WARP_M, D) += p (WARP_M, BLK_N) v (BLK_N, D). The accumulators of two neighbouring n8 groups are the A operand of one k16 step as they
// stand.
template <AttentionFwdSm80Config kConfig>
__device__ __forceinline__ void add_values(float (&o)[kConfig.warp_m() / 16][kConfig.head_dim / 8][4],
                                           const float (&p)[kConfig.warp_m() / 16][kConfig.block_n / 8][4], uint32_t v) {
  using Tile = SwizzledTile<kConfig.head_dim>;
  constexpr int kM = kConfig.warp_m() / 16, kPairs = kConfig.head_dim / 16;
  const Element at_v = matrix_8x8::address_b_pair_transposed(lane_anew());
#pragma unroll
  for (int step = 0; step < kConfig.block_n / 16; ++step) {
    uint32_t a[kM][4], b[2][4];
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int r = 0; r < 4; ++r) {
        const float(&pair)[4] = p[i][2 * step + r / 2];
        a[i][r] = ptx::cvt_bf16x2(pair[r % 2 * 2], pair[r % 2 * 2 + 1]);
      }
    }
    ptx::ldmatrix_x4_trans(b[0], v + Tile::at(step * 16 + at_v.row, at_v.column / 8));
#pragma unroll
    for (int j = 0; j < kPairs; ++j) {
      if (j + 1 < kPairs) ptx::ldmatrix_x4_trans(b[(j + 1) % 2], v + Tile::at(step * 16 + at_v.row, (j + 1) * 2 + at_v.column / 8));
#pragma unroll
      for (int i = 0; i < kM; ++i) {
        ptx::mma_m16n8k16_bf16(o[i][2 * j], a[i], b[j % 2][0], b[j % 2][1]);
        ptx::mma_m16n8k16_bf16(o[i][2 * j + 1], a[i], b[j % 2][2], b[j % 2][3]);
      }
    }
  }
}

// warp. -inf for keys that a row does not see. row: the warp's first query; key: the tile's first key.
template <AttentionFwdSm80Config kConfig>
__device__ __forceinline__ void mask_scores(float (&s)[kConfig.warp_m() / 16][kConfig.block_n / 8][4], const AttentionFwdParams& p, int batch,
                                            int row, int key) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < kConfig.warp_m() / 16; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int t = min(row + i * 16 + mma_m16n8k16::d(lane, 2 * half).row, p.queries - 1);  // rows past the end repeat the last one
      const int last = p.keys - p.queries + t, first = first_visible_key(p, batch, t);
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
  using Tile = SwizzledTile<kD>;
  std::byte* shared = dyn_smem<std::byte>();
  const uint32_t tile_q = ptx::smem_u32(shared);      // (BLK_M, D)
  const uint32_t tile_k = tile_q + kBlockM * kD * 2;  // (BLK_N, D)
  const uint32_t tile_v = tile_k + kBlockN * kD * 2;  // (BLK_N, D)

  const int t0 = static_cast<int>(gridDim.x - 1 - blockIdx.x) * kBlockM;  // blocks with most keys start first
  const int head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z), kv_head = head / p.group;
  const int rows = min(kBlockM, p.queries - t0);
  const KeyTiles tiles =
      key_tiles(p.keys - p.queries + t0, rows, p.keys, first_visible_key(p, batch, t0), first_visible_key(p, batch, t0 + rows - 1), kBlockN);
  // Registers are scarce: addresses are worked out anew for every tile instead of kept.
  const auto load_rows = [&](const HeadsView& from, int tile, uint32_t to) {
    AsyncTileLoader<kBlockN, kD, kConfig.threads()>(from.data + batch * from.batch + kv_head * from.head, from.row, p.keys, kD, tile * kBlockN, 0)
        .load(to);
    ptx::cp_async_commit();
  };
  AsyncTileLoader<kBlockM, kD, kConfig.threads()>(p.q.data + batch * p.q.batch + head * p.q.head, p.q.row, p.queries, kD, t0, 0).load(tile_q);
  load_rows(p.k, tiles.last - 1, tile_k);
  ptx::cp_async_wait<0>();
  __syncthreads();

  const int warp_row = static_cast<int>(threadIdx.x) / 32 * kWarpM;
  const uint32_t warp_q = tile_q + warp_row * kD * 2;
  const float scale_log2 = p.scale * 1.44269504f;  // probabilities are powers of 2
  SoftmaxRows<kConfig> softmax;
  float o[kWarpM / 16][kD / 8][4] = {};
  for (int tile = tiles.last - 1; tile >= tiles.first; --tile) {
    load_rows(p.v, tile, tile_v);
    float s[kWarpM / 16][kBlockN / 8][4];
    scores<kConfig>(s, warp_q, tile_k);
    if (tile >= tiles.unmasked_last || tile < tiles.unmasked_first) mask_scores<kConfig>(s, p, batch, t0 + warp_row, tile * kBlockN);
    ptx::cp_async_wait<0>();
    __syncthreads();  // V is here for all, K has been read by all
    if (tile > tiles.first) load_rows(p.k, tile - 1, tile_k);
    softmax.update(s, o, scale_log2);
    add_values<kConfig>(o, s, tile_v);
    ptx::cp_async_wait<0>();
    __syncthreads();  // K is here, V has been read
  }

  // O / sum as bf16 into the warp's own rows of the Q tile, then whole 16-byte chunks to memory.
  const int lane = static_cast<int>(threadIdx.x) % 32;
  std::byte* staging = shared + warp_row * kD * 2;
#pragma unroll
  for (int i = 0; i < kWarpM / 16; ++i) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = softmax.sum[i][half];
      sum += ptx::shfl_bfly(sum, 1);
      sum += ptx::shfl_bfly(sum, 2);
      const float inverse = 1.0f / sum;
      const int row = i * 16 + mma_m16n8k16::d(lane, 2 * half).row, t = t0 + warp_row + row;
#pragma unroll
      for (int j = 0; j < kD / 8; ++j) {
        *reinterpret_cast<uint32_t*>(staging + Tile::at(row, j) + lane % 4 * 4) =
            ptx::cvt_bf16x2(o[i][j][2 * half] * inverse, o[i][j][2 * half + 1] * inverse);
      }
      if (p.lse != nullptr && lane % 4 == 0 && t < p.queries) {
        p.lse[(static_cast<int64_t>(batch) * gridDim.y + head) * p.queries + t] = softmax.highest[i][half] * p.scale + logf(sum);
      }
    }
  }
  ptx::warp_sync();
  bf16* out = p.out.data + batch * p.out.batch + head * p.out.head;
#pragma unroll
  for (int chunk = lane; chunk < kWarpM * Tile::kChunks; chunk += 32) {
    const int row = chunk / Tile::kChunks, column = chunk % Tile::kChunks, t = t0 + warp_row + row;
    if (t < p.queries) ptx::st128(out + t * p.out.row + column * 8, ptx::ld128_shared(warp_q + Tile::at(row, column)));
  }
}

template <AttentionFwdSm80Config kConfig>
void launch_attention_fwd_sm80(const AttentionFwdParams& p, int batches, int heads, Stream stream) {
  const int blocks = (p.queries + kConfig.block_m - 1) / kConfig.block_m;
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(heads), static_cast<unsigned>(batches));
  HEDDLE_LAUNCH((attention_fwd_sm80_kernel<Configured<kConfig>>), grid, kConfig.threads(), kConfig.shared_bytes(), stream, p);
}

inline HeadsView heads_view(const View& v) {
  return {v.as<bf16>(), v.step(0), v.step(1), v.step(2)};
}

// Picks the tile by the head dimension: 64 or 128.
inline void launch_attention_fwd_sm80_for(const AttentionForwardArgs& args, Stream stream) {
  AttentionFwdParams p{};
  p.q = heads_view(args.q);
  p.k = heads_view(args.k);
  p.v = heads_view(args.v);
  p.out = heads_view(args.out);
  p.lse = args.lse.as<float>();
  p.document_start = args.document_start.as<const int32_t>();
  p.queries = static_cast<int>(args.q.size(1));
  p.keys = static_cast<int>(args.k.size(1));
  p.group = static_cast<int>(args.q.size(2) / args.k.size(2));
  p.scale = args.scale;
  p.window = static_cast<int>(args.window < p.keys ? args.window : 0);
  const int batches = static_cast<int>(args.q.size(0)), query_heads = static_cast<int>(args.q.size(2));
  if (args.q.size(3) == 64) {
    launch_attention_fwd_sm80<kAttentionFwd64>(p, batches, query_heads, stream);
  } else {
    launch_attention_fwd_sm80<kAttentionFwd128>(p, batches, query_heads, stream);
  }
}

}  // namespace heddle::kernels::cuda
