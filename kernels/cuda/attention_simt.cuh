// Attention without tensor cores, forward and backward, in f32 arithmetic: any strides, any head dimension up to 256. See kernels/api/attention.h for
// what it computes; the matrices of scores exist tile by tile only (Dao et al. 2022, Milakov and Gimelshein 2018).
//
//   forward   a block owns a tile of queries of one head and walks the tiles of keys that it sees
//   keys      a block owns a tile of keys of one KV head and walks the tiles of queries that see it, of every head of the group: dK, dV
//   queries   a block owns a tile of queries of one head and walks the tiles of keys that it sees: dQ
//
// Bound by arithmetic: eight 16-byte reads of shared memory feed 32 multiply-adds of a thread.
#pragma once

#include "kernels/cuda/attention_delta.cuh"
#include "kernels/cuda/attention_simt_config.h"
#include "kernels/cuda/configured.h"

namespace heddle::kernels::cuda {

// What all three kernels are told.
template <class T>
struct AttentionSimtParams {
  HeadsView<const T> q, k, v, d_out;
  HeadsView<T> out, dq, dk, dv;  // those that the kernel writes
  RowsView lse;                  // written forward (or null), read backward
  const float* delta;            // (B, H, T), dense
  AttentionMask mask;
  int batches, heads, group, head_dim;  // group: query heads per KV head
  int tiles;                            // of 32, of the side that blocks own
  float scale;
  Fault* fault;
};

// A thread's place among the scores: rows row + 16 i, columns column + 8 j; of a sum columns 32 j + 4 column ... + 3. The eight threads of a row are
// neighbours in a warp.
struct SimtPlace {
  int row = static_cast<int>(threadIdx.x) / 8, column = static_cast<int>(threadIdx.x) % 8;
};

namespace block {

// block; a barrier must follow. tile (32, D) = `rows` rows of `from`, `stride` elements apart, as f32; zeros below them and right of D.
template <class T>
__device__ __forceinline__ void load_tile(float* tile, const T* from, int64_t stride, int rows, int d) {
  const int lane = static_cast<int>(threadIdx.x) % 32, tile_row = AttentionSimtConfig::tile_row(d);
#pragma unroll 2
  for (int row = static_cast<int>(threadIdx.x) / 32; row < AttentionSimtConfig::kTile; row += AttentionSimtConfig::kThreads / 32) {
    for (int column = lane; column < tile_row - 4; column += 32) {
      tile[row * tile_row + column] = row < rows && column < d ? to_float(from[row * stride + column]) : 0.0f;
    }
  }
}

}  // namespace block

namespace thread {

__device__ __forceinline__ float4 load4(const float* shared) {
  return *reinterpret_cast<const float4*>(shared);
}

// s (2, 4) = the thread's part of a (32, D) b (32, D)^T
__device__ __forceinline__ void scores(float (&s)[2][4], const float* a, const float* b, int d) {
  const SimtPlace at;
  const int tile_row = AttentionSimtConfig::tile_row(d);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) s[i][j] = 0;
  }
  for (int c = 0; c < d; c += 4) {
    float4 x[2], y[4];
#pragma unroll
    for (int i = 0; i < 2; ++i) x[i] = load4(a + (at.row + 16 * i) * tile_row + c);
#pragma unroll
    for (int j = 0; j < 4; ++j) y[j] = load4(b + (at.column + 8 * j) * tile_row + c);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        s[i][j] += x[i].x * y[j].x;
        s[i][j] += x[i].y * y[j].y;
        s[i][j] += x[i].z * y[j].z;
        s[i][j] += x[i].w * y[j].w;
      }
    }
  }
}

// What a thread sums up: two rows of up to kColumns columns.
template <int kColumns>
using SimtSums = float[2][kColumns / 32][4];

// sums += the thread's part of p (32, 32) b (32, D)
template <int kColumns>
__device__ __forceinline__ void add_product(SimtSums<kColumns>& sums, const float* p, const float* b, int d) {
  const SimtPlace at;
  const int tile_row = AttentionSimtConfig::tile_row(d);
  for (int k = 0; k < AttentionSimtConfig::kTile; k += 4) {
    float x[2][4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float4 four = load4(p + (at.row + 16 * i) * AttentionSimtConfig::kScoreRow + k);
      x[i][0] = four.x;
      x[i][1] = four.y;
      x[i][2] = four.z;
      x[i][3] = four.w;
    }
#pragma unroll
    for (int j = 0; j < kColumns / 32; ++j) {
      if (32 * j >= d) continue;
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float4 y = load4(b + (k + e) * tile_row + 32 * j + 4 * at.column);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          sums[i][j][0] += x[i][e] * y.x;
          sums[i][j][1] += x[i][e] * y.y;
          sums[i][j][2] += x[i][e] * y.z;
          sums[i][j][3] += x[i][e] * y.w;
        }
      }
    }
  }
}

// Writes the thread's part of `rows` rows of `to`: row (i) times factor[i].
template <int kColumns, class T>
__device__ __forceinline__ void store_sums(T* to, int64_t stride, const SimtSums<kColumns>& sums, const float (&factor)[2], int rows, int d) {
  const SimtPlace at;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if (at.row + 16 * i >= rows) continue;
#pragma unroll
    for (int j = 0; j < kColumns / 32; ++j) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int column = 32 * j + 4 * at.column + e;
        if (column < d) to[(at.row + 16 * i) * stride + column] = from_float<T>(sums[i][j][e] * factor[i]);
      }
    }
  }
}

}  // namespace thread

template <class Config, class T>
__global__ void __launch_bounds__(AttentionSimtConfig::kThreads, Config::value.blocks())
    attention_simt_forward_kernel(const AttentionSimtParams<T> p) {
  constexpr int kTile = AttentionSimtConfig::kTile, kColumns = Config::value.head_dim;
  const int d = p.head_dim, floats = AttentionSimtConfig::tile_floats(d);
  float* const tile_q = dyn_smem<float>();
  float* const tile_k = tile_q + floats;
  float* const tile_v = tile_k + floats;
  float* const probabilities = tile_v + floats;  // (32, 32)

  const TileOfHead of = tile_of_head(static_cast<int>(blockIdx.x), p.tiles, p.heads);
  const int t0 = (p.tiles - 1 - of.tile) * kTile;  // the tiles with most keys first
  const AttentionMask mask = p.mask.of(of.batch);
  const int rows = min(kTile, mask.queries - t0), last_key = mask.last_key(t0 + rows - 1);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  if (of.head == 0 && threadIdx.x < 32 && lane < rows) p.mask.note_fault(p.fault, of.batch, t0 + lane);
  if (of.head == 0 && of.tile == 0 && threadIdx.x == 0) p.mask.note_position(p.fault, of.batch);
  const SimtPlace at;
  int first[2], last[2];
  float highest[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};  // of scores as exponents of 2; sums are the thread's own
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int t = min(t0 + at.row + 16 * i, mask.queries - 1);
    first[i] = mask.first_key(of.batch, t);
    last[i] = mask.last_key(t);
  }
  block::load_tile(tile_q, p.q.matrix(of.batch, of.head) + t0 * p.q.row, p.q.row, rows, d);

  const float scale_log2 = p.scale * kLog2E;
  const T* const k = p.k.matrix(of.batch, of.head / p.group);
  const T* const v = p.v.matrix(of.batch, of.head / p.group);
  thread::SimtSums<kColumns> o = {};
  for (int key = warp::first_keys<kTile>(mask, of.batch, t0).lowest / kTile * kTile; key <= last_key; key += kTile) {
    __syncthreads();  // the keys before have been read
    block::load_tile(tile_k, k + key * p.k.row, p.k.row, min(kTile, mask.keys - key), d);
    block::load_tile(tile_v, v + key * p.v.row, p.v.row, min(kTile, mask.keys - key), d);
    __syncthreads();
    float s[2][4];
    thread::scores(s, tile_q, tile_k, d);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = highest[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const int own = key + at.column + 8 * j;
        s[i][j] = own >= first[i] && own <= last[i] ? s[i][j] * scale_log2 : -INFINITY;
        top = fmaxf(top, s[i][j]);
      }
#pragma unroll
      for (int offset = 1; offset < 8; offset *= 2) top = fmaxf(top, ptx::shfl_bfly(top, offset));
      const float shift = top == -INFINITY ? 0.0f : top;  // no key seen yet: all probabilities become 0, not NaN
      const float correction = exp2f(highest[i] - shift);
      highest[i] = top;
      sum[i] *= correction;
#pragma unroll
      for (int j = 0; j < kColumns / 32; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) o[i][j][e] *= correction;
      }
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float probability = exp2f(s[i][j] - shift);
        sum[i] += probability;
        probabilities[(at.row + 16 * i) * AttentionSimtConfig::kScoreRow + at.column + 8 * j] = probability;
      }
    }
    ptx::warp_sync();  // a row of probabilities is a warp's own; the barrier above came after the last reads of it
    thread::add_product<kColumns>(o, probabilities, tile_v, d);
  }

  float inverse[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int offset = 1; offset < 8; offset *= 2) sum[i] += ptx::shfl_bfly(sum[i], offset);
    inverse[i] = 1.0f / sum[i];
    const int row = at.row + 16 * i;
    if (p.lse.data != nullptr && at.column == 0 && row < rows) p.lse.vector(of.batch, of.head)[t0 + row] = highest[i] * kLn2 + logf(sum[i]);
  }
  thread::store_sums<kColumns>(p.out.matrix(of.batch, of.head) + t0 * p.out.row, p.out.row, o, inverse, rows, d);
}

// The thread's probabilities p and score gradients ds of a tile: s comes in as q k^T, ds as d_out v^T.
__device__ __forceinline__ void simt_gradients(float (&s)[2][4], float (&ds)[2][4], const float (&lse)[2], const float (&delta)[2],
                                               const int (&first)[2], int t, int key, float scale_log2) {
  const SimtPlace at;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int own = key + at.column + 8 * j;
      const bool seen = own >= first[i] && own <= t + at.row + 16 * i;
      s[i][j] = seen ? exp2f(s[i][j] * scale_log2 - lse[i] * kLog2E) : 0.0f;
      ds[i][j] = seen ? s[i][j] * (ds[i][j] - delta[i]) : 0.0f;
    }
  }
}

template <class Config, class T>
__global__ void __launch_bounds__(AttentionSimtConfig::kThreads, Config::value.blocks()) attention_simt_keys_kernel(const AttentionSimtParams<T> p) {
  constexpr int kTile = AttentionSimtConfig::kTile, kRow = AttentionSimtConfig::kScoreRow, kColumns = Config::value.head_dim;
  const int d = p.head_dim, floats = AttentionSimtConfig::tile_floats(d);
  float* const tile_k = dyn_smem<float>();
  float* const tile_v = tile_k + floats;
  float* const tile_q = tile_v + floats;
  float* const tile_d_out = tile_q + floats;
  float* const probabilities = tile_d_out + floats;                            // (keys, queries)
  float* const gradients = probabilities + AttentionSimtConfig::kScoreFloats;  // (keys, queries)
  float* const row_lse = gradients + AttentionSimtConfig::kScoreFloats;        // of the tile's queries
  float* const row_delta = row_lse + kTile;
  int* const row_first = reinterpret_cast<int*>(row_delta + kTile);

  const TileOfHead of = tile_of_head(static_cast<int>(blockIdx.x), p.tiles, p.heads / p.group);  // the tiles that most queries see first
  const int key = of.tile * kTile, keys = min(kTile, p.mask.keys - key), lane = static_cast<int>(threadIdx.x) % 32;
  block::load_tile(tile_k, p.k.matrix(of.batch, of.head) + key * p.k.row, p.k.row, keys, d);
  block::load_tile(tile_v, p.v.matrix(of.batch, of.head) + key * p.v.row, p.v.row, keys, d);

  const SimtPlace at;
  const float scale_log2 = p.scale * kLog2E;
  thread::SimtSums<kColumns> dk = {}, dv = {};
  for (int head = of.head * p.group; head < (of.head + 1) * p.group; ++head) {
    for (int t0 = key; t0 < p.mask.queries; t0 += kTile) {
      const int rows = min(kTile, p.mask.queries - t0);
      if (warp::first_keys<kTile>(p.mask, of.batch, t0).lowest >= key + keys) continue;  // the same in every warp
      __syncthreads();                                                                   // the queries before have been read
      block::load_tile(tile_q, p.q.matrix(of.batch, head) + t0 * p.q.row, p.q.row, rows, d);
      block::load_tile(tile_d_out, p.d_out.matrix(of.batch, head) + t0 * p.d_out.row, p.d_out.row, rows, d);
      if (threadIdx.x < 32) {
        const int t = min(t0 + lane, p.mask.queries - 1);
        row_lse[lane] = lane < rows ? p.lse.vector(of.batch, head)[t] : INFINITY;  // rows past the end: no probability
        row_delta[lane] = p.delta[(static_cast<int64_t>(of.batch) * p.heads + head) * p.mask.queries + t];
        row_first[lane] = p.mask.first_key(of.batch, t);
      }
      __syncthreads();
      float s[2][4], ds[2][4];
      thread::scores(s, tile_q, tile_k, d);
      thread::scores(ds, tile_d_out, tile_v, d);
      const float lse[2] = {row_lse[at.row], row_lse[at.row + 16]}, delta[2] = {row_delta[at.row], row_delta[at.row + 16]};
      const int first[2] = {row_first[at.row], row_first[at.row + 16]};
      simt_gradients(s, ds, lse, delta, first, t0, key, scale_log2);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          probabilities[(at.column + 8 * j) * kRow + at.row + 16 * i] = s[i][j];
          gradients[(at.column + 8 * j) * kRow + at.row + 16 * i] = ds[i][j];
        }
      }
      __syncthreads();
      thread::add_product<kColumns>(dv, probabilities, tile_d_out, d);
      thread::add_product<kColumns>(dk, gradients, tile_q, d);
    }
  }
  thread::store_sums<kColumns>(p.dk.matrix(of.batch, of.head) + key * p.dk.row, p.dk.row, dk, {p.scale, p.scale}, keys, d);
  thread::store_sums<kColumns>(p.dv.matrix(of.batch, of.head) + key * p.dv.row, p.dv.row, dv, {1.0f, 1.0f}, keys, d);
}

template <class Config, class T>
__global__ void __launch_bounds__(AttentionSimtConfig::kThreads, Config::value.blocks())
    attention_simt_queries_kernel(const AttentionSimtParams<T> p) {
  constexpr int kTile = AttentionSimtConfig::kTile, kColumns = Config::value.head_dim;
  const int d = p.head_dim, floats = AttentionSimtConfig::tile_floats(d);
  float* const tile_q = dyn_smem<float>();
  float* const tile_d_out = tile_q + floats;
  float* const tile_k = tile_d_out + floats;
  float* const tile_v = tile_k + floats;
  float* const gradients = tile_v + floats;  // (queries, keys)

  const TileOfHead of = tile_of_head(static_cast<int>(blockIdx.x), p.tiles, p.heads);
  const int t0 = (p.tiles - 1 - of.tile) * kTile, rows = min(kTile, p.mask.queries - t0);
  block::load_tile(tile_q, p.q.matrix(of.batch, of.head) + t0 * p.q.row, p.q.row, rows, d);
  block::load_tile(tile_d_out, p.d_out.matrix(of.batch, of.head) + t0 * p.d_out.row, p.d_out.row, rows, d);

  const SimtPlace at;
  float lse[2], delta[2];
  int first[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int t = min(t0 + at.row + 16 * i, p.mask.queries - 1);
    lse[i] = p.lse.vector(of.batch, of.head)[t];
    delta[i] = p.delta[(static_cast<int64_t>(of.batch) * p.heads + of.head) * p.mask.queries + t];
    first[i] = p.mask.first_key(of.batch, t);
  }
  const float scale_log2 = p.scale * kLog2E;
  const T* const k = p.k.matrix(of.batch, of.head / p.group);
  const T* const v = p.v.matrix(of.batch, of.head / p.group);
  thread::SimtSums<kColumns> dq = {};
  for (int key = warp::first_keys<kTile>(p.mask, of.batch, t0).lowest / kTile * kTile; key < t0 + rows; key += kTile) {
    __syncthreads();  // the keys before have been read
    block::load_tile(tile_k, k + key * p.k.row, p.k.row, min(kTile, p.mask.keys - key), d);
    block::load_tile(tile_v, v + key * p.v.row, p.v.row, min(kTile, p.mask.keys - key), d);
    __syncthreads();
    float s[2][4], ds[2][4];
    thread::scores(s, tile_q, tile_k, d);
    thread::scores(ds, tile_d_out, tile_v, d);
    simt_gradients(s, ds, lse, delta, first, t0, key, scale_log2);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) gradients[(at.row + 16 * i) * AttentionSimtConfig::kScoreRow + at.column + 8 * j] = ds[i][j];
    }
    ptx::warp_sync();  // a row of gradients is a warp's own
    thread::add_product<kColumns>(dq, gradients, tile_k, d);
  }
  thread::store_sums<kColumns>(p.dq.matrix(of.batch, of.head) + t0 * p.dq.row, p.dq.row, dq, {p.scale, p.scale}, rows, d);
}

// ---- launching ----

template <class T, class Args>
AttentionSimtParams<T> attention_simt_params(const Args& args) {
  AttentionSimtParams<T> p{};
  p.q = heads_view<const T>(args.q);
  p.k = heads_view<const T>(args.k);
  p.v = heads_view<const T>(args.v);
  p.lse = rows_view(args.lse);
  p.mask = attention_mask(args);
  p.batches = static_cast<int>(args.q.size(0));
  p.heads = static_cast<int>(args.q.size(2));
  p.group = static_cast<int>(args.q.size(2) / args.k.size(2));
  p.head_dim = static_cast<int>(args.q.size(3));
  p.tiles = (p.mask.queries + AttentionSimtConfig::kTile - 1) / AttentionSimtConfig::kTile;  // backward has as many keys
  p.scale = args.scale;
  p.fault = args.fault;
  return p;
}

template <AttentionSimtConfig kConfig, class T>
void launch_attention_simt_forward(const AttentionSimtParams<T>& p, Stream stream) {
  HEDDLE_LAUNCH((attention_simt_forward_kernel<Configured<kConfig>, T>), static_cast<unsigned>(p.tiles * p.heads * p.batches), kConfig.kThreads,
                kConfig.forward_bytes(p.head_dim), stream, p);
}

template <AttentionSimtConfig kConfig, class T>
void launch_attention_simt_backward(const AttentionSimtParams<T>& p, Stream stream) {
  HEDDLE_LAUNCH((attention_simt_keys_kernel<Configured<kConfig>, T>), static_cast<unsigned>(p.tiles * (p.heads / p.group) * p.batches),
                kConfig.kThreads, kConfig.keys_bytes(p.head_dim), stream, p);
  HEDDLE_LAUNCH((attention_simt_queries_kernel<Configured<kConfig>, T>), static_cast<unsigned>(p.tiles * p.heads * p.batches), kConfig.kThreads,
                kConfig.queries_bytes(p.head_dim), stream, p);
}

}  // namespace heddle::kernels::cuda
