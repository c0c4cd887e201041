// FlashAttention-2 backward for Ampere (Dao 2023, Algorithm 2) on mma.sync and cp.async, without atomics: two passes, each with one owner for every
// result. See kernels/api/attention.h for what it computes.
//
//   queries   a block owns queries of one head (Q, dO) and walks the tiles of keys (K, V) that they see         S = Q K^T   dP = dO V^T   dQ += dS K
//   keys      a block owns keys of one KV head (K, V) and walks the tiles of queries (Q, dO) that see them,     S = K Q^T   dP = V dO^T
//             of every head of the group                                                                        dV += P dO  dK += dS Q
//
//   P = exp(scale S - lse)   dS = P (dP - delta)   delta = rowsum(dO O), by a kernel before (attention_delta.cuh)
//
// The keys' side sees S transposed, so in both passes a warp owns whole rows of S, and S, P, dP, dS and the sums never leave registers: the scores
// are computed twice, seven products instead of five, and in return no result is added by two blocks. Tiles of the other side come through a ring of
// stages: tile i + stages - 1 is on its way while tile i is used.
#pragma once

#include "kernels/cuda/attention_bwd_sm80_config.h"
#include "kernels/cuda/attention_delta.cuh"
#include "kernels/cuda/attention_mma.cuh"
#include "kernels/cuda/attention_views.cuh"
#include "kernels/cuda/configured.h"

namespace heddle::kernels::cuda {

struct AttentionBwdParams {
  HeadsView<const bf16> q, k, v, d_out;  // rows at multiples of 16 bytes
  HeadsView<bf16> dq, dk, dv;
  RowsView lse, delta;  // (B, H, T)
  AttentionMask mask;   // as many keys as queries
  int* lowest;          // (B, tiles): the first key that any query of a tile sees; written by the queries' pass where there are documents
  int tiles;            // of block_m rows, of either side
  int heads, group;     // query heads; those of a KV head
  float scale;
};

// The tile of rows that a block owns, and the tiles of the other side that it walks.
template <AttentionBwdSm80Config kConfig>
struct AttentionBwdBlock {
  static constexpr bool kKeys = kConfig.side == AttentionSide::keys;
  static constexpr int kD = kConfig.head_dim, kBlockM = kConfig.block_m, kBlockN = kConfig.block_n;

  const AttentionBwdParams& p;
  int batch, head;           // of the rows owned: a KV head, or a query head
  int m0;                    // the first row owned
  int first = 0, tiles = 0;  // tiles of the other side, for each head of it

  __device__ __forceinline__ explicit AttentionBwdBlock(const AttentionBwdParams& params) : p(params) {
    head = static_cast<int>(blockIdx.y);
    batch = static_cast<int>(blockIdx.z);
    m0 = static_cast<int>(kKeys ? blockIdx.x : gridDim.x - 1 - blockIdx.x) * kBlockM;  // those with most work first
    if constexpr (kKeys) {
      first = m0 / kBlockN;
      tiles = last_query() / kBlockN + 1 - first;
    } else {
      const FirstKeys keys = warp::first_keys<kBlockM>(p.mask, batch, m0);
      first = keys.lowest / kBlockN;
      tiles = (m0 + rows() - 1) / kBlockN + 1 - first;
      if (p.mask.document_start != nullptr && head == 0 && threadIdx.x == 0) p.lowest[batch * p.tiles + m0 / kBlockM] = keys.lowest;
    }
  }

  // warp. The last query that may see a key of the block.
  __device__ __forceinline__ int last_query() const {
    const int last_key = m0 + rows() - 1;
    int last = p.mask.queries - 1;
    if (p.mask.window > 0) last = min(last, last_key + p.mask.window - 1);
    if (p.mask.document_start == nullptr) return last;
    static_assert(kBlockM == kAttentionBwdBlockM);
    int tile = m0 / kBlockM;
    for (int i = tile + static_cast<int>(threadIdx.x) % 32; i < p.tiles; i += 32) {
      if (p.lowest[batch * p.tiles + i] <= last_key) tile = i;
    }
    return min(last, (ptx::reduce_max_signed(tile) + 1) * kBlockM - 1);
  }

  __device__ __forceinline__ int rows() const { return min(kBlockM, p.mask.queries - m0); }
  __device__ __forceinline__ int units() const { return kKeys ? p.group * tiles : tiles; }
  __device__ __forceinline__ int first_row(int unit) const { return (first + unit % tiles) * kBlockN; }  // of the other side
  __device__ __forceinline__ int other_head(int unit) const { return kKeys ? head * p.group + unit / tiles : head / p.group; }

  // block. Starts the copy of the rows that the block owns.
  __device__ __forceinline__ void load_own(uint32_t tiles_own) const {
    load<kBlockM>(kKeys ? p.k : p.q, head, m0, tiles_own, static_cast<int>(threadIdx.x));
    load<kBlockM>(kKeys ? p.v : p.d_out, head, m0, tiles_own + kBlockM * kD * 2, static_cast<int>(threadIdx.x));
  }
  // block. Starts the copies of a unit: (2, BLK_N, D), and of queries (3, BLK_N) facts; zeros past the end.
  __device__ __forceinline__ void load_other(int unit, uint32_t stage, uint32_t facts) const {
    const int row = first_row(unit), of = other_head(unit), thread = warp::thread_anew();
    load<kBlockN>(kKeys ? p.q : p.k, of, row, stage, thread);
    load<kBlockN>(kKeys ? p.d_out : p.v, of, row, stage + kBlockN * kD * 2, thread);
    if constexpr (kKeys) {
      const bool documents = p.mask.document_start != nullptr;
      for (int i = thread; i < (documents ? 3 : 2) * kBlockN; i += kConfig.threads()) {
        const int which = i / kBlockN, t = row + i % kBlockN;
        const void* from = which == 0   ? static_cast<const void*>(p.lse.vector(batch, of) + t)
                           : which == 1 ? static_cast<const void*>(p.delta.vector(batch, of) + t)
                                        : static_cast<const void*>(p.mask.document_start + batch * p.mask.start_batch + t);
        ptx::cp_async_zfill<4>(facts + i * 4, from, t < p.mask.queries ? 4 : 0);
      }
    }
  }

  template <int kRows>
  __device__ __forceinline__ void load(const HeadsView<const bf16>& from, int of, int row, uint32_t to, int thread) const {
    AsyncTileLoader<kRows, kD, kConfig.threads()>(from.matrix(batch, of), from.row, p.mask.queries, kD, row, 0, thread).load(to);
  }
};

// A warp's rows are queries: their facts stay in registers.
template <AttentionBwdSm80Config kConfig>
class QueriesAreRows {
 public:
  static constexpr int kM = kConfig.warp_m() / 16, kN = kConfig.block_n / 8;
  using Scores = float[kM][kN][4];

  // t0: the warp's first query.
  __device__ __forceinline__ QueriesAreRows(const AttentionBwdParams& p, int batch, int head, int t0) : mask_(p.mask), batch_(batch), t0_(t0) {
    if (t0 >= p.mask.queries) return;
    seen_ = warp::first_keys<kConfig.warp_m()>(p.mask, batch, t0);
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int t = query(i, half);
        lse_log2_[i][half] = p.lse.vector(batch, head)[t] * kLog2E;
        delta_[i][half] = p.delta.vector(batch, head)[t];
      }
    }
  }

  // Whether the warp has anything to do with keys key0 ... key0 + kBlockN - 1, and whether every query sees them all.
  __device__ __forceinline__ bool meets(int key0) const {
    return t0_ < mask_.queries && key0 <= t0_ + kConfig.warp_m() - 1 && key0 + kConfig.block_n > seen_.lowest;
  }
  __device__ __forceinline__ bool sees_all(int key0) const {
    return key0 + kConfig.block_n - 1 <= t0_ && key0 >= seen_.highest;
  }

  // s = -inf where a query does not see a key
  __device__ __forceinline__ void hide(Scores& s, int key0) const {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int last = query(i, half), first = mask_.first_key(batch_, last);
#pragma unroll
        for (int j = 0; j < kN; ++j) {
#pragma unroll
          for (int e = 2 * half; e < 2 * half + 2; ++e) {
            const int key = key0 + j * 8 + mma_m16n8k16::d(lane(), e).column;
            if (key > last || key < first) s[i][j][e] = -INFINITY;
          }
        }
      }
    }
  }
  // s = P
  __device__ __forceinline__ void exponentiate(Scores& s, float scale_log2) const {
    each([&](int i, int j, int e) { s[i][j][e] = ptx::ex2(s[i][j][e] * scale_log2 - lse_log2_[i][e / 2]); });
  }
  // ds = P (dP - delta)
  __device__ __forceinline__ void differentiate(Scores& ds, const Scores& p) const {
    each([&](int i, int j, int e) { ds[i][j][e] = p[i][j][e] * (ds[i][j][e] - delta_[i][e / 2]); });
  }

 private:
  __device__ static __forceinline__ int lane() {
    return warp::lane_anew();
  }
  // Rows past the end repeat the last one.
  __device__ __forceinline__ int query(int i, int half) const {
    return min(t0_ + i * 16 + mma_m16n8k16::d(lane(), 2 * half).row, mask_.queries - 1);
  }
  template <class F>
  __device__ static __forceinline__ void each(const F& f) {
#pragma unroll
    for (int i = 0; i < kM; ++i) {
#pragma unroll
      for (int j = 0; j < kN; ++j) {
#pragma unroll
        for (int e = 0; e < 4; ++e) f(i, j, e);
      }
    }
  }

  const AttentionMask& mask_;
  int batch_, t0_;
  FirstKeys seen_ = {};
  float lse_log2_[kM][2] = {}, delta_[kM][2] = {};
};

// A warp's columns are queries: their facts (3, BLK_N) come with the tile. Zeros past the end: with Q and dO zero there, those add nothing.
template <AttentionBwdSm80Config kConfig>
class QueriesAreColumns {
 public:
  static constexpr int kM = kConfig.warp_m() / 16, kN = kConfig.block_n / 8;
  using Scores = float[kM][kN][4];

  // t0: the tile's first query.
  __device__ __forceinline__ QueriesAreColumns(const AttentionMask& mask, const float* facts, int t0) : mask_(mask), facts_(facts), t0_(t0) {
    seen_.lowest = seen_.highest = 0;
    if (mask.window > 0) {
      seen_.lowest = max(0, t0 - mask.window + 1);
      seen_.highest = max(0, t0 + kConfig.block_n - mask.window);
    }
    if (mask.document_start == nullptr) return;
    int lowest = mask.keys, highest = 0;
#pragma unroll
    for (int column = 0; column < kConfig.block_n; column += 32) {
      const int start = document(column + lane());
      lowest = min(lowest, start);
      highest = max(highest, start);
    }
    seen_.lowest = max(seen_.lowest, ptx::reduce_min_signed(lowest));
    seen_.highest = max(seen_.highest, ptx::reduce_max_signed(highest));
  }

  // Whether any query meets keys key0 ... key0 + kWarpM - 1, and whether every query sees them all.
  __device__ __forceinline__ bool meets(int key0) const {
    return key0 < mask_.keys && key0 <= t0_ + kConfig.block_n - 1 && key0 + kConfig.warp_m() > seen_.lowest;
  }
  __device__ __forceinline__ bool sees_all(int key0) const {
    return key0 + kConfig.warp_m() - 1 <= t0_ && key0 >= seen_.highest;
  }

  __device__ __forceinline__ void hide(Scores& s, int key0) const {
#pragma unroll
    for (int j = 0; j < kN; ++j) {
#pragma unroll
      for (int right = 0; right < 2; ++right) {
        const int column = j * 8 + mma_m16n8k16::d(lane(), right).column, last = t0_ + column;
        int first = mask_.window > 0 ? last - mask_.window + 1 : 0;
        if (mask_.document_start != nullptr) first = max(first, document(column));
#pragma unroll
        for (int i = 0; i < kM; ++i) {
#pragma unroll
          for (int e = right; e < 4; e += 2) {
            const int key = key0 + i * 16 + mma_m16n8k16::d(lane(), e).row;
            if (key > last || key < first) s[i][j][e] = -INFINITY;
          }
        }
      }
    }
  }
  __device__ __forceinline__ void exponentiate(Scores& s, float scale_log2) const {
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      const float2 lse = pair(0, j);
      const float lse_log2[2] = {lse.x * kLog2E, lse.y * kLog2E};
#pragma unroll
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) s[i][j][e] = ptx::ex2(s[i][j][e] * scale_log2 - lse_log2[e % 2]);
      }
    }
  }
  __device__ __forceinline__ void differentiate(Scores& ds, const Scores& p) const {
#pragma unroll
    for (int j = 0; j < kN; ++j) {
      const float2 both = pair(1, j);
      const float delta[2] = {both.x, both.y};
#pragma unroll
      for (int i = 0; i < kM; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) ds[i][j][e] = p[i][j][e] * (ds[i][j][e] - delta[e % 2]);
      }
    }
  }

 private:
  __device__ static __forceinline__ int lane() {
    return warp::lane_anew();
  }
  __device__ __forceinline__ int document(int column) const {
    return min(reinterpret_cast<const int*>(facts_)[2 * kConfig.block_n + column], t0_ + column);
  }
  __device__ __forceinline__ float2 pair(int which, int j) const {
    return *reinterpret_cast<const float2*>(facts_ + which * kConfig.block_n + j * 8 + mma_m16n8k16::d(lane(), 0).column);
  }

  const AttentionMask& mask_;
  const float* facts_;
  int t0_;
  FirstKeys seen_;
};

template <class Config>
__global__ void __launch_bounds__(Config::value.threads()) attention_bwd_sm80_kernel(const AttentionBwdParams p) {
  constexpr AttentionBwdSm80Config kConfig = Config::value;
  constexpr bool kKeys = kConfig.side == AttentionSide::keys;
  constexpr int kD = kConfig.head_dim, kM = kConfig.warp_m() / 16, kN = kConfig.block_n / 8, kStages = kConfig.stages;
  constexpr int kOwnTile = kConfig.own_bytes() / 2, kTile = kConfig.tiles_bytes() / 2, kFacts = kOwnTile * 2 + kStages * kTile * 2;
  std::byte* const shared = dyn_smem<std::byte>();  // (2, BLK_M, D) own, (STAGE, 2, BLK_N, D) of the other side, (STAGE, 3, BLK_N) facts
  const uint32_t place = ptx::smem_u32(shared);

  const AttentionBwdBlock<kConfig> block(p);
  const auto start_copy = [&](int unit) {
    const int stage = unit % kStages;
    if (unit < block.units()) block.load_other(unit, place + kOwnTile * 2 + stage * kTile * 2, place + kFacts + stage * kConfig.facts_bytes());
    ptx::cp_async_commit();  // one group per unit, empty or not: the waits count groups
  };
  block.load_own(place);
#pragma unroll
  for (int unit = 0; unit < kStages - 1; ++unit) start_copy(unit);

  const int warp_row = static_cast<int>(threadIdx.x) / 32 * kConfig.warp_m(), warp_m0 = block.m0 + warp_row;
  const uint32_t own_0 = place + warp_row * kD * 2, own_1 = own_0 + kOwnTile;  // the warp's rows of K and V, or of Q and dO
  const float scale_log2 = p.scale * kLog2E;
  float sum_0[kM][kD / 8][4] = {};                          // dK or dQ
  float sum_1[kKeys ? kM : 1][kKeys ? kD / 8 : 1][4] = {};  // dV
  const auto step = [&](const auto& queries, int key0, uint32_t tile_0, uint32_t tile_1) {
    if (!queries.meets(key0)) return;
    float s[kM][kN][4], ds[kM][kN][4];
    warp::scores<kD>(s, own_0, tile_0);
    if (!queries.sees_all(key0)) queries.hide(s, key0);
    queries.exponentiate(s, scale_log2);
    if constexpr (kKeys) warp::add_product<kD>(sum_1, s, tile_1);
    warp::scores<kD>(ds, own_1, tile_1);
    queries.differentiate(ds, s);
    warp::add_product<kD>(sum_0, ds, tile_0);
  };

  if constexpr (kKeys) {
    for (int unit = 0; unit < block.units(); ++unit) {
      ptx::cp_async_wait<kStages - 2>();
      __syncthreads();  // this unit is here for all; the one before has been read by all
      start_copy(unit + kStages - 1);
      const int stage = unit % kStages;
      const uint32_t tile = place + kOwnTile * 2 + stage * kTile * 2;
      const auto* const facts = reinterpret_cast<const float*>(shared + kFacts + stage * kConfig.facts_bytes());
      step(QueriesAreColumns<kConfig>(p.mask, facts, block.first_row(unit)), warp_m0, tile, tile + kTile);
    }
  } else {
    const QueriesAreRows<kConfig> queries(p, block.batch, block.head, warp_m0);
    for (int unit = 0; unit < block.units(); ++unit) {
      ptx::cp_async_wait<kStages - 2>();
      __syncthreads();
      start_copy(unit + kStages - 1);
      const uint32_t tile = place + kOwnTile * 2 + unit % kStages * kTile * 2;
      step(queries, block.first_row(unit), tile, tile + kTile);
    }
  }

  // By way of the rows that the warp owns: no other warp reads them.
  const auto store = [&](const HeadsView<bf16>& to, const auto& sum, float factor, int staging) {
    float factors[kM][2];
#pragma unroll
    for (int i = 0; i < kM; ++i) factors[i][0] = factors[i][1] = factor;
    warp::store_rows<kD>(to.matrix(block.batch, block.head) + warp_m0 * to.row, to.row, block.rows() - warp_row, sum, factors,
                         shared + warp_row * kD * 2 + staging);
  };
  store(kKeys ? p.dk : p.dq, sum_0, p.scale, 0);
  if constexpr (kKeys) store(p.dv, sum_1, 1.0f, kOwnTile);
}

template <AttentionBwdSm80Config kConfig>
void launch_attention_bwd_sm80_pass(const AttentionBwdParams& p, int batches, Stream stream) {
  static_assert(kConfig.block_m == kAttentionBwdBlockM);
  const int heads = kConfig.side == AttentionSide::keys ? p.heads / p.group : p.heads;
  const dim3 grid(static_cast<unsigned>(p.tiles), static_cast<unsigned>(heads), static_cast<unsigned>(batches));
  HEDDLE_LAUNCH((attention_bwd_sm80_kernel<Configured<kConfig>>), grid, kConfig.threads(), kConfig.shared_bytes(), stream, p);
}

// Scratch: delta, and `lowest` of the queries' tiles where there are documents.
inline int attention_bwd_tiles(const AttentionBackwardArgs& args) {
  return static_cast<int>((args.q.size(1) + kAttentionBwdBlockM - 1) / kAttentionBwdBlockM);
}
inline size_t attention_bwd_sm80_scratch(const AttentionBackwardArgs& args) {
  const size_t lowest = args.document_start ? static_cast<size_t>(args.q.size(0) * attention_bwd_tiles(args)) : 0;
  return attention_delta_bytes(args) + sizeof(int) * lowest;
}

// Picks the tiles by the head dimension: 64, 96 or 128.
inline void launch_attention_bwd_sm80_for(const AttentionBackwardArgs& args, Stream stream) {
  AttentionBwdParams p{};
  p.q = heads_view<const bf16>(args.q);
  p.k = heads_view<const bf16>(args.k);
  p.v = heads_view<const bf16>(args.v);
  p.d_out = heads_view<const bf16>(args.d_out);
  p.dq = heads_view<bf16>(args.dq);
  p.dk = heads_view<bf16>(args.dk);
  p.dv = heads_view<bf16>(args.dv);
  p.lse = rows_view(args.lse);
  p.mask = attention_mask(args);
  p.heads = static_cast<int>(args.q.size(2));
  p.group = static_cast<int>(args.q.size(2) / args.k.size(2));
  p.delta = {reinterpret_cast<float*>(args.scratch.data()), int64_t{p.heads} * p.mask.queries, p.mask.queries};
  p.lowest = reinterpret_cast<int*>(args.scratch.data() + attention_delta_bytes(args));
  p.tiles = attention_bwd_tiles(args);
  p.scale = args.scale;
  const int batches = static_cast<int>(args.q.size(0));
  launch_attention_delta<bf16>(args, p.delta.data, stream);
  // The queries first: the keys' pass reads what they note of documents.
  switch (args.q.size(3)) {
    case 64:
      launch_attention_bwd_sm80_pass<kAttentionBwdQueries64>(p, batches, stream);
      return launch_attention_bwd_sm80_pass<kAttentionBwdKeys64>(p, batches, stream);
    case 96:
      launch_attention_bwd_sm80_pass<kAttentionBwdQueries96>(p, batches, stream);
      return launch_attention_bwd_sm80_pass<kAttentionBwdKeys96>(p, batches, stream);
    default:
      launch_attention_bwd_sm80_pass<kAttentionBwdQueries128>(p, batches, stream);
      return launch_attention_bwd_sm80_pass<kAttentionBwdKeys128>(p, batches, stream);
  }
}

}  // namespace heddle::kernels::cuda
