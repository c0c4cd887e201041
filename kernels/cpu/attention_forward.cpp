// Attention, forward: a task is a tile of queries of one head; it walks over the tiles of keys its mask lets it see and keeps the running
// maximum and sum of the softmax (Milakov and Gimelshein 2018). One or a few queries (decoding) take a path of dot products instead.
#include <omp.h>

#include <cmath>

#include "kernels/cpu/attention_internal.h"
#include "kernels/cpu/attention_tasks_internal.h"
#include "kernels/cpu/gemm_internal.h"
#include "kernels/cpu/rules_internal.h"

namespace heddle::kernels::cpu {
namespace {

using namespace attention;

constexpr int64_t kFewQueries = 4;

int64_t position_of(const View& position, int64_t b) {
  return position.as<const int32_t>()[b * position.step(0)];
}

// False: the first that is not is noted.
bool positions_in_cache(const AttentionForwardArgs& args) {
  const int64_t last = args.k.size(1) - args.q.size(1);
  for (int64_t b = 0; args.position && b < args.q.size(0); ++b) {
    const int64_t at = position_of(args.position, b);
    if (at < 0 || at > last) return noted(args.fault, {.kind = FaultKind::cache_position, .row = b, .value = at, .limit = last});
  }
  return true;
}

template <class T>
struct HeadForward {
  Rows<const T> q, k, v;
  Rows<T> out;
  vec::Accumulator<T>* lse;  // (T) or nullptr
  const int32_t* start;      // (T) or nullptr
  int64_t queries, keys, d, window;
  vec::Accumulator<T> scale;
};

// Scores of block q against rows [begin, end) of the tile of keys, masked; updates maximum and sum, leaves the probabilities in s^T.
// Returns whether any query's maximum moved: then `rescale` (a lane per query) is the factor on what was summed before.
template <class A>
bool softmax_step(const Mask<A>& mask, int64_t q, int64_t first_key, const typename Mask<A>::Range& range, A* scores, A* maximum, A* total,
                  A* rescale) {
  using V = vec::Vec<A>;
  constexpr int L = vec::lanes<A>;
  const V lowest = vec::broadcast(-std::numeric_limits<A>::infinity());
  bool moved = false;
  for (int v = 0; v < 2; ++v) {
    A* s = scores + v * L;
    const V before = vec::load(maximum + v * L);
    V m = before;
    if (range.partial) {
      for (int64_t j = range.begin; j < range.end; ++j) {
        const V x = vec::select(mask.visible(q, v, first_key + j), vec::load(s + j * kBlock<A>), lowest);
        vec::store(s + j * kBlock<A>, x);
        m = vec::max(m, x);
      }
    } else {
      V m1 = m;
      int64_t j = range.begin;
      for (; j + 2 <= range.end; j += 2) {
        m = vec::max(m, vec::load(s + j * kBlock<A>));
        m1 = vec::max(m1, vec::load(s + (j + 1) * kBlock<A>));
      }
      if (j < range.end) m = vec::max(m, vec::load(s + j * kBlock<A>));
      m = vec::max(m, m1);
    }
    const V shift = vec::select(m == lowest, V{}, m);  // nothing seen yet: keep inf - inf out
    V sum{};
    for (int64_t j = range.begin; j < range.end; ++j) {
      const V p = vec::exp(vec::load(s + j * kBlock<A>) - shift);
      vec::store(s + j * kBlock<A>, p);
      sum += p;
    }
    const V factor = vec::exp(before - shift);
    vec::store(total + v * L, vec::fma(vec::load(total + v * L), factor, sum));
    vec::store(maximum + v * L, m);
    vec::store(rescale + v * L, factor);
    for (int i = 0; i < L; ++i) moved |= m[i] != before[i];
  }
  return moved;
}

template <class T>
int64_t tile_elements(int64_t d) {
  using A = vec::Accumulator<T>;
  const int64_t padded = round_up(d, kBlock<A>);
  return d * kQueries + 2 * kKeys * padded + 2 * kQueries * padded + kKeys * kBlock<A>;
}

template <class T>
void forward_tile(const HeadForward<T>& head, int64_t first, int64_t n) {
  using A = vec::Accumulator<T>;
  constexpr int64_t kB = kBlock<A>;
  const int64_t d = head.d, padded = round_up(d, kB);
  A* qt = thread_buffer<A>(0, tile_elements<T>(d));  // (d, kQueries): scale q^T
  A* k = qt + d * kQueries;                          // (kKeys, padded)
  A* v = k + kKeys * padded;                         // (kKeys, padded)
  A* out = v + kKeys * padded;                       // (kQueries, padded)
  A* rows = out + kQueries * padded;                 // (kQueries, padded): q before it is transposed
  A* scores = rows + kQueries * padded;              // (kKeys, kB)
  alignas(64) A maximum[kQueries], total[kQueries] = {}, rescale[kB];
  std::fill_n(maximum, kQueries, -std::numeric_limits<A>::infinity());
  std::fill_n(out, kQueries * padded, A{0});
  pack_rows(head.q, first, n, d, padded, head.scale, rows);
  pack_transposed(rows, padded, n, d, qt);

  const Mask<A> mask(first, n, head.queries, head.keys, head.window, head.start);
  for (int64_t j0 = mask.first_key / kKeys * kKeys; j0 <= mask.last; j0 += kKeys) {
    const int64_t count = std::min(kKeys, head.keys - j0);
    bool packed = false;
    for (int64_t q = 0; q < mask.blocks; ++q) {
      const auto range = mask.range(q, j0, count);
      if (range.empty()) continue;
      if (!packed) {
        pack_rows(head.k, j0, count, d, padded, A{1}, k);
        pack_rows(head.v, j0, count, d, padded, A{1}, v);
        packed = true;
      }
      const int64_t seen = range.end - range.begin;
      product<false>(seen, kB, d, k + range.begin * padded, padded, qt + q * kB, kQueries, scores + range.begin * kB, kB, false);
      A* to = out + q * kB * padded;
      if (softmax_step(mask, q, j0, range, scores, maximum + q * kB, total + q * kB, rescale)) {
        for (int64_t i = 0; i < kB; ++i) {
          for (int64_t c = 0; c < padded; c += vec::lanes<A>) vec::store(to + i * padded + c, vec::load(to + i * padded + c) * rescale[i]);
        }
      }
      product<true>(kB, padded, seen, scores + range.begin * kB, kB, v + range.begin * padded, padded, to, padded, true);
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    store_row(head.out[first + i], out + i * padded, d, 1 / total[i]);
    if (head.lse) head.lse[first + i] = maximum[i] + std::log(total[i]);
  }
}

// One query: dot products along the head, kQueries keys at a time.
template <class T>
void forward_row(const HeadForward<T>& head, int64_t t) {
  using A = vec::Accumulator<T>;
  using V = vec::Vec<A>;
  constexpr int64_t L = vec::lanes<A>;
  const int64_t d = head.d, padded = round_up(d, L), whole = d / L * L;
  alignas(64) A q[kMaxHead], out[kMaxHead] = {}, p[kQueries];
  pack_rows(head.q, t, 1, d, padded, head.scale, q);
  A maximum = -std::numeric_limits<A>::infinity(), total = 0;
  const int64_t position = head.keys - head.queries + t;
  int64_t first = head.window > 0 ? std::max<int64_t>(position - head.window + 1, 0) : 0;
  if (head.start) first = std::max<int64_t>(first, head.start[t]);
  for (int64_t j0 = first; j0 <= position; j0 += kQueries) {
    const int64_t count = std::min(kQueries, position + 1 - j0);
    A highest = maximum;
    for (int64_t j = 0; j < count; ++j) {
      const T* key = head.k[j0 + j];
      V s{};
      for (int64_t c = 0; c < whole; c += L) s = vec::fma(vec::load(q + c), vec::load(key + c), s);
      if (whole < d) s = vec::fma(vec::load(q + whole), vec::load_partial(key + whole, d - whole), s);
      p[j] = vec::reduce_add(s);
      highest = p[j] > highest ? p[j] : highest;
    }
    const A shift = std::isinf(highest) && highest < 0 ? A{0} : highest;
    for (int64_t j = count; j < round_up(count, L); ++j) p[j] = -std::numeric_limits<A>::infinity();
    V sum{};
    for (int64_t j = 0; j < count; j += L) {
      const V e = vec::exp(vec::load(p + j) - shift);
      vec::store(p + j, e);
      sum += e;
    }
    const A factor = std::exp(maximum - shift);
    total = total * factor + vec::reduce_add(sum);
    maximum = highest;
    for (int64_t c = 0; c < d; c += L) {
      V o = vec::load(out + c) * factor;
      for (int64_t j = 0; j < count; ++j) {
        const T* value = head.v[j0 + j] + c;
        o = vec::fma(vec::broadcast(p[j]), c < whole ? vec::load(value) : vec::load_partial(value, d - c), o);
      }
      vec::store(out + c, o);
    }
  }
  store_row(head.out[t], out, d, 1 / total);
  if (head.lse) head.lse[t] = maximum + std::log(total);
}

template <class T>
void run_as(const AttentionForwardArgs& args) {
  using A = vec::Accumulator<T>;
  const int64_t batch = args.q.size(0), queries = args.q.size(1), heads = args.q.size(2), keys = args.k.size(1), group = heads / args.k.size(2);
  const auto head = [&](int64_t b, int64_t h) {
    HeadForward<T> x{head_of<const T>(args.q, b, h), head_of<const T>(args.k, b, h / group), head_of<const T>(args.v, b, h / group),
                     head_of<T>(args.out, b, h)};
    x.lse = args.lse ? args.lse.as<A>() + b * args.lse.step(0) + h * args.lse.step(1) : nullptr;
    x.start = args.document_start ? args.document_start.as<const int32_t>() + b * args.document_start.step(0) : nullptr;
    x.queries = queries;
    x.keys = args.position ? position_of(args.position, b) + queries : keys;
    x.d = args.q.size(3);
    x.window = args.window;
    x.scale = static_cast<A>(args.scale);
    return x;
  };
  const bool threads = attention_flops(args.q, args.k) > kParallelFlops;
  if (queries <= kFewQueries) {
#pragma omp parallel for schedule(dynamic) if (threads)
    for (int64_t task = 0; task < batch * heads; ++task) {
      const auto x = head(task / heads, task % heads);
      for (int64_t t = 0; t < queries; ++t) forward_row(x, t);
    }
    return;
  }
  // Later tiles see more keys: they go first, so that the threads end together.
  const int64_t tiles = round_up(queries, kQueries) / kQueries;
#pragma omp parallel for schedule(dynamic) if (threads)
  for (int64_t task = 0; task < tiles * batch * heads; ++task) {
    const int64_t first = (tiles - 1 - task / (batch * heads)) * kQueries, at = task % (batch * heads);
    forward_tile(head(at / heads, at % heads), first, std::min(kQueries, queries - first));
  }
}

}  // namespace

Refusal attention_refuses(const AttentionForwardArgs& args) {
  return head_size_refusal(args.q);
}

void attention_run(const AttentionForwardArgs& args, Stream) {
  check(args);
  if (!documents_start_before(args.fault, args.document_start, args.q.size(1)) || !positions_in_cache(args)) return;
  if (args.q.numel() == 0) return;
  switch (args.q.dtype) {
    case DType::f32: return run_as<float>(args);
    case DType::f64: return run_as<double>(args);
    default: return run_as<bf16>(args);
  }
}

}  // namespace heddle::kernels::cpu
