// Attention, backward (Dao et al. 2022, algorithm 4): probabilities are recomputed tile by tile from lse.
//
//   delta = sum_d d_out out;  p = exp(scale q k^T - lse);  ds = p (d_out v^T - delta)
//   dv = p^T d_out;  dk = scale ds^T q;  dq = scale ds k
//
// A task is one KV head of one sequence and every n-th of its (query head, tile of queries) pairs, n = splits: a function of the shape that
// gives a small batch enough tasks. dq of a tile belongs to one task; dk and dv are summed in f32 (f64) in the task's own part of the
// scratch, and the parts are added in order at the end.
#include <omp.h>

#include "kernels/cpu/attention_internal.h"
#include "kernels/cpu/attention_tasks_internal.h"
#include "kernels/cpu/gemm_internal.h"

namespace heddle::kernels::cpu {
namespace {

using namespace attention;

constexpr int64_t kEnoughTasks = 16;

struct Plan {
  int64_t batch, length, heads, kv_heads, group, d, tiles, splits, padded;

  explicit Plan(const AttentionBackwardArgs& args)
      : batch(args.q.size(0)), length(args.q.size(1)), heads(args.q.size(2)), kv_heads(args.k.size(2)), group(heads / kv_heads), d(args.q.size(3)) {
    tiles = round_up(length, kQueries) / kQueries;
    const int64_t pairs = group * tiles, sequences = std::max<int64_t>(batch * kv_heads, 1);
    splits = std::clamp<int64_t>((kEnoughTasks + sequences - 1) / sequences, 1, std::max<int64_t>(pairs, 1));
    padded = round_up(d, args.q.dtype == DType::f64 ? kBlock<double> : kBlock<float>);
  }
  int64_t tasks() const { return batch * kv_heads * splits; }
  int64_t part() const { return 2 * length * padded; }  // elements of dk and dv of one task
};

template <class T>
struct Tiles {
  using A = vec::Accumulator<T>;
  A *q, *d_out;    // (kQueries, padded): scale q, d_out
  A *qt, *d_outt;  // (d, kQueries)
  A *k, *v;        // (kKeys, padded)
  A* dq;           // (kQueries, padded)
  A *p, *ds;       // (kKeys, kQueries)

  Tiles(int64_t d, int64_t padded) {
    const int64_t rows = kQueries * padded, keys = kKeys * padded, scores = kKeys * kQueries;
    A* at = thread_buffer<A>(0, 3 * rows + 2 * d * kQueries + 2 * keys + 2 * scores);
    for (auto [tile, size] : {std::pair{&q, rows},
                              {&d_out, rows},
                              {&dq, rows},
                              {&qt, d * kQueries},
                              {&d_outt, d * kQueries},
                              {&k, keys},
                              {&v, keys},
                              {&p, scores},
                              {&ds, scores}}) {
      *tile = at;
      at += size;
    }
  }
};

// p and ds of block q against the keys in `range`: s^T and dp^T come in in p and ds.
template <class A>
void probabilities(const Mask<A>& mask, int64_t q, int64_t first_key, const typename Mask<A>::Range& range, const A* lse, const A* delta, A* p,
                   A* ds) {
  using V = vec::Vec<A>;
  constexpr int L = vec::lanes<A>;
  for (int v = 0; v < 2; ++v) {
    const int64_t lane = q * kBlock<A> + v * L;
    const V log_sum = vec::load(lse + lane), d = vec::load(delta + lane);
    for (int64_t j = range.begin; j < range.end; ++j) {
      A* at = p + j * kQueries + lane;
      V e = vec::exp(vec::load(at) - log_sum);
      V slope = e * (vec::load(ds + j * kQueries + lane) - d);
      if (range.partial) {
        const auto seen = mask.visible(q, v, first_key + j);
        e = vec::select(seen, e, V{});
        slope = vec::select(seen, slope, V{});
      }
      vec::store(at, e);
      vec::store(ds + j * kQueries + lane, slope);
    }
  }
}

template <class A>
A dot(const A* x, const A* y, int64_t padded) {
  vec::Vec<A> sum{};
  for (int64_t j = 0; j < padded; j += vec::lanes<A>) sum = vec::fma(vec::load(x + j), vec::load(y + j), sum);
  return vec::reduce_add(sum);
}

// One tile of queries of one head: writes its dq, adds to dk and dv (S, padded).
template <class T>
void backward_tile(const AttentionBackwardArgs& args, const Plan& plan, int64_t b, int64_t h, int64_t first, vec::Accumulator<T>* dk,
                   vec::Accumulator<T>* dv) {
  using A = vec::Accumulator<T>;
  constexpr int64_t kB = kBlock<A>;
  const int64_t n = std::min(kQueries, plan.length - first), d = plan.d, padded = plan.padded;
  const A scale = static_cast<A>(args.scale);
  const auto k = head_of<const T>(args.k, b, h / plan.group), v = head_of<const T>(args.v, b, h / plan.group);
  const A* lse = args.lse.as<const A>() + b * args.lse.step(0) + h * args.lse.step(1) + first;
  const int32_t* start = args.document_start ? args.document_start.as<const int32_t>() + b * args.document_start.step(0) : nullptr;
  const Tiles<T> tile(d, padded);

  alignas(64) A log_sum[kQueries], delta[kQueries] = {};
  std::fill_n(log_sum, kQueries, std::numeric_limits<A>::infinity());  // lanes beyond n: p = exp(-inf) = 0
  std::copy_n(lse, n, log_sum);
  pack_rows(head_of<const T>(args.out, b, h), first, n, d, padded, A{1}, tile.q);
  pack_rows(head_of<const T>(args.d_out, b, h), first, n, d, padded, A{1}, tile.d_out);
  for (int64_t i = 0; i < n; ++i) delta[i] = dot(tile.q + i * padded, tile.d_out + i * padded, padded);
  pack_rows(head_of<const T>(args.q, b, h), first, n, d, padded, scale, tile.q);
  std::fill_n(tile.q + n * padded, (kQueries - n) * padded, A{0});
  std::fill_n(tile.d_out + n * padded, (kQueries - n) * padded, A{0});
  pack_transposed(tile.q, padded, n, d, tile.qt);
  pack_transposed(tile.d_out, padded, n, d, tile.d_outt);
  std::fill_n(tile.dq, kQueries * padded, A{0});

  const Mask<A> mask(first, n, plan.length, plan.length, args.window, start);
  for (int64_t j0 = mask.first_key / kKeys * kKeys; j0 <= mask.last; j0 += kKeys) {
    const int64_t count = std::min(kKeys, plan.length - j0);
    int64_t first_block = mask.blocks, end_block = 0;
    for (int64_t q = 0; q < mask.blocks; ++q) {
      if (mask.range(q, j0, count).empty()) continue;
      first_block = std::min(first_block, q);
      end_block = q + 1;
    }
    if (first_block >= end_block) continue;
    pack_rows(k, j0, count, d, padded, A{1}, tile.k);
    pack_rows(v, j0, count, d, padded, A{1}, tile.v);
    for (int64_t q = first_block; q < end_block; ++q) {
      const auto range = mask.range(q, j0, count);
      const int64_t begin = std::min(range.begin, count), end = std::max(begin, range.end);
      const auto clear = [&](A* x, int64_t from, int64_t to) {
        for (int64_t j = from; j < to; ++j) std::fill_n(x + j * kQueries + q * kB, kB, A{0});
      };
      for (A* x : {tile.p, tile.ds}) {
        clear(x, 0, begin);
        clear(x, end, count);
      }
      if (range.empty()) continue;
      const int64_t seen = range.end - range.begin, at = range.begin * kQueries + q * kB;
      product<false>(seen, kB, d, tile.k + range.begin * padded, padded, tile.qt + q * kB, kQueries, tile.p + at, kQueries, false);
      product<false>(seen, kB, d, tile.v + range.begin * padded, padded, tile.d_outt + q * kB, kQueries, tile.ds + at, kQueries, false);
      probabilities(mask, q, j0, range, log_sum, delta, tile.p, tile.ds);
      product<true>(kB, padded, seen, tile.ds + at, kQueries, tile.k + range.begin * padded, padded, tile.dq + q * kB * padded, padded, true);
    }
    const int64_t q0 = first_block * kB, depth = end_block * kB - q0;
    product<false>(count, padded, depth, tile.p + q0, kQueries, tile.d_out + q0 * padded, padded, dv + j0 * padded, padded, true);
    product<false>(count, padded, depth, tile.ds + q0, kQueries, tile.q + q0 * padded, padded, dk + j0 * padded, padded, true);
  }
  const auto dq = head_of<T>(args.dq, b, h);
  for (int64_t i = 0; i < n; ++i) store_row(dq[first + i], tile.dq + i * padded, d, scale);
}

template <class T>
void run_as(const AttentionBackwardArgs& args) {
  using A = vec::Accumulator<T>;
  constexpr int64_t L = vec::lanes<A>;
  const Plan plan(args);
  A* scratch = reinterpret_cast<A*>(args.scratch.data());
  const bool threads = attention_flops(args.q, args.k) > kParallelFlops;
#pragma omp parallel for schedule(dynamic) if (threads)
  for (int64_t task = 0; task < plan.tasks(); ++task) {
    const int64_t split = task % plan.splits, kv = task / plan.splits % plan.kv_heads, b = task / plan.splits / plan.kv_heads;
    A* dk = scratch + task * plan.part();
    std::fill_n(dk, plan.part(), A{0});
    for (int64_t pair = split; pair < plan.group * plan.tiles; pair += plan.splits) {
      backward_tile<T>(args, plan, b, kv * plan.group + pair / plan.tiles, pair % plan.tiles * kQueries, dk, dk + plan.length * plan.padded);
    }
  }
#pragma omp parallel for schedule(static) if (threads)
  for (int64_t row = 0; row < plan.batch * plan.kv_heads * plan.length; ++row) {
    const int64_t t = row % plan.length, sequence = row / plan.length, b = sequence / plan.kv_heads, kv = sequence % plan.kv_heads;
    A* first = scratch + sequence * plan.splits * plan.part() + t * plan.padded;
    for (const auto& [to, offset] : {std::pair{&args.dk, int64_t{0}}, {&args.dv, plan.length * plan.padded}}) {
      A* sum = first + offset;
      for (int64_t split = 1; split < plan.splits; ++split) {
        for (int64_t j = 0; j < plan.padded; j += L) vec::store(sum + j, vec::load(sum + j) + vec::load(sum + split * plan.part() + j));
      }
      store_row(head_of<T>(*to, b, kv)[t], sum, plan.d, A{1});
    }
  }
}

}  // namespace

Refusal attention_refuses(const AttentionBackwardArgs& args) {
  return head_size_refusal(args.q);
}

size_t attention_scratch(const AttentionBackwardArgs& args) {
  const Plan plan(args);
  return static_cast<size_t>(plan.tasks() * plan.part() * size_of(accumulator_of(args.q.dtype)));
}

void attention_run(const AttentionBackwardArgs& args, Stream) {
  check(args);
  HEDDLE_CHECK(args.scratch.size() >= attention_scratch(args), "attention_backward", "scratch too small: ", args.scratch.size(), " of ",
               attention_scratch(args), " bytes");
  if (!documents_start_before(args.fault, args.document_start, args.q.size(1))) return;
  if (args.q.numel() == 0) return;
  switch (args.q.dtype) {
    case DType::f32: return run_as<float>(args);
    case DType::f64: return run_as<double>(args);
    default: return run_as<bf16>(args);
  }
}

}  // namespace heddle::kernels::cpu
