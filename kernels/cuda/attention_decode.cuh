// Attention of a few queries over a long KV cache, f32 and bf16: see kernels/api/attention.h for what it computes. Flash-decoding (Dao et al. 2023):
//
//   parts     a block walks a part of the keys for the rows of one KV head: every query of every head of its group, so that the group reads a key
//   once combine   a warp adds the parts' sums of a row, in their order, each scaled to the common maximum
//
// A key is spread over neighbouring lanes, 16 bytes each, so a warp reads several whole rows at once; each such team keeps a softmax of its own, and
// teams, warps and parts are joined in an order that follows from the shape alone. With one part there is no second launch.
//
// Bound by memory: K and V once, 2 S D elements a KV head; a part's sums are a few hundredths of what it reads. Up to four rows the arithmetic, 4 D
// operations of f32 a row and key, about hides behind the reads; with eight rows instructions take 1.5 to 2.5 times as long as an H200's memory.
#pragma once

#include "kernels/cuda/attention_decode_config.h"
#include "kernels/cuda/attention_views.cuh"
#include "kernels/cuda/configured.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/vec.cuh"

namespace heddle::kernels::cuda {

template <class T>
struct AttentionDecodeParams {
  HeadsView<const T> q, k, v;  // rows at multiples of 16 bytes
  HeadsView<T> out;
  RowsView lse;  // or null
  AttentionMask mask;
  DecodePlan plan;
  int kv_heads, group, head_dim, all_rows;  // all_rows: of all sequences
  float scale;
  float *sums, *stats;  // (all_rows, splits, D), (all_rows, splits, 2): maximum as an exponent of 2, sum; null: one split
  Fault* fault;
};

// Where row `r` of a KV head's rows lies.
struct DecodeRow {
  int t, head;

  __device__ __forceinline__ DecodeRow(int r, int kv_head, int group) : t(r / group), head(kv_head * group + r % group) {}
};

namespace thread {

// What a maximum that rises or joins another leaves of the sums below it: exponents of 2; a maximum of -inf has seen no key, and nothing to leave.
__device__ __forceinline__ float decode_shift(float highest) {
  return highest == -INFINITY ? 0.0f : highest;
}

template <class T>
__device__ __forceinline__ void write_decoded(const AttentionDecodeParams<T>& p, int batch, const DecodeRow& at, int column, float o, float highest,
                                              float sum) {
  p.out.matrix(batch, at.head)[at.t * p.out.row + column] = from_float<T>(o / sum);
  if (column == 0 && p.lse.data != nullptr) p.lse.vector(batch, at.head)[at.t] = highest * kLn2 + logf(sum);
}

}  // namespace thread

template <class Config, class T>
__global__ void __launch_bounds__(AttentionDecodeConfig::kThreads, Config::value.blocks()) attention_decode_kernel(const AttentionDecodeParams<T> p) {
  constexpr AttentionDecodeConfig kConfig = Config::value;
  constexpr int kLanes = kConfig.lanes, kRows = kConfig.rows, kElements = 16 / static_cast<int>(sizeof(T)), kInFlight = kConfig.in_flight();
  constexpr int kColumns = kLanes * kElements, kWarps = AttentionDecodeConfig::kWarps;
  HEDDLE_SHARED(float, of_warps, [kWarps][kRows][kColumns]);
  HEDDLE_SHARED(float, maxima, [kWarps][kRows]);
  HEDDLE_SHARED(float, totals, [kWarps][kRows]);
  HEDDLE_SHARED(int, first_keys, [kRows]);
  HEDDLE_SHARED(int, last_keys, [kRows]);

  const int tile = static_cast<int>(blockIdx.x) % p.plan.tiles, split = static_cast<int>(blockIdx.x) / p.plan.tiles;
  const int kv_head = static_cast<int>(blockIdx.y), batch = static_cast<int>(blockIdx.z), thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32, lane = thread % 32, column = lane % kLanes * kElements;
  const bool reads = column < p.head_dim;
  if (blockIdx.x == 0 && kv_head == 0 && thread < p.mask.queries) p.mask.note_fault(p.fault, batch, thread);
  if (blockIdx.x == 0 && kv_head == 0 && thread == 0) p.mask.note_position(p.fault, batch);
  const AttentionMask mask = p.mask.of(batch);
  if (thread < kRows) {
    const DecodeRow at(min(tile * kRows + thread, p.plan.rows - 1), kv_head, p.group);
    first_keys[thread] = mask.first_key(batch, at.t);
    last_keys[thread] = mask.last_key(at.t);
  }
  float q[kRows][kElements] = {}, o[kRows][kElements] = {}, highest[kRows], sum[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const DecodeRow at(min(tile * kRows + i, p.plan.rows - 1), kv_head, p.group);
    if (reads) thread::unpack(ptx::ld128(p.q.matrix(batch, at.head) + at.t * p.q.row + column), q[i]);
#pragma unroll
    for (int e = 0; e < kElements; ++e) q[i][e] *= p.scale * kLog2E;
    highest[i] = -INFINITY;
    sum[i] = 0;
  }
  __syncthreads();

  const T* const k = p.k.matrix(batch, kv_head) + column;
  const T* const v = p.v.matrix(batch, kv_head) + column;
  const int part = p.plan.first_key + split * p.plan.keys_per_split, end = min(part + p.plan.keys_per_split, mask.keys);
  const int begin = max(part, mask.window_start(0));
  for (int key = begin + warp * kConfig.warp_step() + lane / kLanes; key - lane / kLanes < end; key += kWarps * kConfig.warp_step()) {
    uint4 keys[kInFlight] = {}, values[kInFlight] = {};
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int own = key + u * kConfig.keys();
      if (reads && own < end) keys[u] = ptx::ld128(k + own * p.k.row);
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int own = key + u * kConfig.keys();
      if (reads && own < end) values[u] = ptx::ld128(v + own * p.v.row);
    }
    float s[kInFlight][kRows];
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      const int own = key + u * kConfig.keys();
      float x[kElements];
      thread::unpack(keys[u], x);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        float product = 0;
#pragma unroll
        for (int e = 0; e < kElements; ++e) product += q[i][e] * x[e];
        product = warp::sum<kLanes>(product);
        s[u][i] = own < end && own >= first_keys[i] && own <= last_keys[i] ? product : -INFINITY;
      }
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      float top = highest[i];
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) top = fmaxf(top, s[u][i]);
      const float shift = thread::decode_shift(top), left = ptx::ex2(highest[i] - shift);
      highest[i] = top;
      sum[i] *= left;
#pragma unroll
      for (int e = 0; e < kElements; ++e) o[i][e] *= left;
#pragma unroll
      for (int u = 0; u < kInFlight; ++u) {
        s[u][i] = ptx::ex2(s[u][i] - shift);
        sum[i] += s[u][i];
      }
    }
#pragma unroll
    for (int u = 0; u < kInFlight; ++u) {
      float x[kElements];
      thread::unpack(values[u], x);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int e = 0; e < kElements; ++e) o[i][e] += s[u][i] * x[e];
      }
    }
  }

  // The teams of a warp, then the warps.
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int offset = kLanes; offset < 32; offset *= 2) {
      const float other = ptx::shfl_bfly(highest[i], offset), top = fmaxf(highest[i], other), shift = thread::decode_shift(top);
      const float left = ptx::ex2(highest[i] - shift), theirs = ptx::ex2(other - shift);
      highest[i] = top;
      sum[i] = sum[i] * left + ptx::shfl_bfly(sum[i], offset) * theirs;
#pragma unroll
      for (int e = 0; e < kElements; ++e) o[i][e] = o[i][e] * left + ptx::shfl_bfly(o[i][e], offset) * theirs;
    }
    if (lane >= kLanes) continue;
#pragma unroll
    for (int e = 0; e < kElements; ++e) of_warps[warp][i][column + e] = o[i][e];
    if (lane == 0) maxima[warp][i] = highest[i], totals[warp][i] = sum[i];
  }
  __syncthreads();
  for (int at = thread; at < kRows * kColumns; at += AttentionDecodeConfig::kThreads) {
    const int i = at / kColumns, c = at % kColumns, r = tile * kRows + i;
    if (r >= p.plan.rows || c >= p.head_dim) continue;
    float top = maxima[0][i];
#pragma unroll
    for (int w = 1; w < kWarps; ++w) top = fmaxf(top, maxima[w][i]);
    const float shift = thread::decode_shift(top);
    float total = 0, value = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float share = ptx::ex2(maxima[w][i] - shift);
      total += totals[w][i] * share;
      value += of_warps[w][i][c] * share;
    }
    if (p.sums == nullptr) {
      thread::write_decoded(p, batch, DecodeRow(r, kv_head, p.group), c, value, top, total);
      continue;
    }
    const int64_t place = (int64_t{batch * p.kv_heads + kv_head} * p.plan.rows + r) * p.plan.splits + split;
    p.sums[place * p.head_dim + c] = value;
    if (c == 0) p.stats[2 * place] = top, p.stats[2 * place + 1] = total;
  }
}

template <class T>
__global__ void __launch_bounds__(AttentionDecodeConfig::kThreads) attention_combine_kernel(const AttentionDecodeParams<T> p) {
  constexpr int kEach = AttentionDecodeConfig::kMostColumns / 32;  // columns of a lane
  const int row = static_cast<int>(blockIdx.x) * AttentionDecodeConfig::kWarps + static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32, splits = p.plan.splits;
  if (row >= p.all_rows) return;  // a whole warp
  const float* const stats = p.stats + int64_t{row} * splits * 2;
  const float* const sums = p.sums + int64_t{row} * splits * p.head_dim + lane;
  float top = -INFINITY;
  for (int split = lane; split < splits; split += 32) top = fmaxf(top, stats[2 * split]);
  top = warp::max(top);
  const float shift = thread::decode_shift(top);
  float total = 0, o[kEach] = {};
#pragma unroll 4
  for (int split = 0; split < splits; ++split) {
    const float share = ptx::ex2(stats[2 * split] - shift);
    total += stats[2 * split + 1] * share;
#pragma unroll
    for (int j = 0; j < kEach; ++j) {
      if (lane + 32 * j < p.head_dim) o[j] += sums[int64_t{split} * p.head_dim + 32 * j] * share;
    }
  }
  const int kv_row = row / p.plan.rows;
  const DecodeRow at(row % p.plan.rows, kv_row % p.kv_heads, p.group);
#pragma unroll
  for (int j = 0; j < kEach; ++j) {
    if (lane + 32 * j < p.head_dim) thread::write_decoded(p, kv_row / p.kv_heads, at, lane + 32 * j, o[j], top, total);
  }
}

inline DecodePlan decode_plan(const AttentionForwardArgs& args) {
  const int64_t window = args.position ? 0 : args.window;  // where it lies is known to the device alone
  return DecodePlan::of(args.q.size(0), args.k.size(2), args.q.size(2) / args.k.size(2), args.q.size(1), args.k.size(1), window);
}

inline size_t attention_decode_bytes(const AttentionForwardArgs& args) {
  return decode_plan(args).bytes(args.q.size(0) * args.q.size(1) * args.q.size(2), args.q.size(3));
}

template <class T>
void launch_attention_decode(const AttentionForwardArgs& args, Stream stream) {
  constexpr int kElements = 16 / static_cast<int>(sizeof(T)), kNarrow = 64 / kElements, kWide = 128 / kElements;
  AttentionDecodeParams<T> p{};
  p.q = heads_view<const T>(args.q);
  p.k = heads_view<const T>(args.k);
  p.v = heads_view<const T>(args.v);
  p.out = heads_view<T>(args.out);
  p.lse = rows_view(args.lse);
  p.mask = attention_mask(args);
  p.plan = decode_plan(args);
  p.kv_heads = static_cast<int>(args.k.size(2));
  p.group = static_cast<int>(args.q.size(2) / args.k.size(2));
  p.head_dim = static_cast<int>(args.q.size(3));
  p.all_rows = static_cast<int>(args.q.size(0) * args.q.size(1) * args.q.size(2));
  p.scale = args.scale;
  p.fault = args.fault;
  if (p.plan.splits > 1) {
    p.sums = reinterpret_cast<float*>(args.scratch.data());
    p.stats = p.sums + p.plan.sums(p.all_rows, p.head_dim);
  }
  const dim3 grid(static_cast<unsigned>(p.plan.tiles * p.plan.splits), static_cast<unsigned>(p.kv_heads), static_cast<unsigned>(args.q.size(0)));
  const auto launch = [&]<AttentionDecodeConfig kConfig>() {
    HEDDLE_LAUNCH((attention_decode_kernel<Configured<kConfig>, T>), grid, kConfig.kThreads, 0, stream, p);
  };
  const auto with_rows = [&]<int kLanes>() {
    switch (decode_rows(p.plan.rows)) {
      case 1: return launch.template operator()<AttentionDecodeConfig{kLanes, 1}>();
      case 4: return launch.template operator()<AttentionDecodeConfig{kLanes, 4}>();
      default: return launch.template operator()<AttentionDecodeConfig{kLanes, 8}>();
    }
  };
  p.head_dim <= 64 ? with_rows.template operator()<kNarrow>() : with_rows.template operator()<kWide>();
  if (p.sums == nullptr) return;
  const auto blocks = static_cast<unsigned>((p.all_rows + AttentionDecodeConfig::kWarps - 1) / AttentionDecodeConfig::kWarps);
  HEDDLE_LAUNCH((attention_combine_kernel<T>), blocks, AttentionDecodeConfig::kThreads, 0, stream, p);
}

}  // namespace heddle::kernels::cuda
