// The gradients of attention: each row's softmax statistics first, then one element at a time. kernels/api/attention.h.
#include "bench/gpu/reference.cuh"
#include "tests/sim/proving_kernels.h"

namespace heddle::bench {
namespace {

using kernels::AttentionBackwardArgs;

constexpr double kU32 = 0x1p-24, kU16 = 0x1p-8;

// Of a query: the log of the sum of exponentials, sum of p dp, and of its absolute values; the largest sum of |scale q k|.
struct RowFacts {
  double lse, delta, delta_size, score;
};

struct Gradients {
  View q, k, v, d_out, start;
  double scale;
  int64_t window;
  const RowFacts* facts;  // (B, H, T)

  __device__ int64_t first_key(int64_t b, int64_t t) const {
    int64_t first = start.data != nullptr ? static_cast<int64_t>(load(start, b, t)) : 0;
    if (window > 0 && t - window + 1 > first) first = t - window + 1;
    return first;
  }
  __device__ static double at(const View& view, int64_t b, int64_t t, int64_t h, int64_t c) {
    return load(view, b * view.stride[0] + t * view.stride[1] + h * view.stride[2] + c);
  }
  __device__ int64_t kv_head(int64_t h) const { return h / (q.shape[2] / k.shape[2]); }
  // scale q k and dO v of query t and key s of head h, and the sums of their absolute terms.
  __device__ Expected score(int64_t b, int64_t t, int64_t s, int64_t h) const {
    Expected sum;
    for (int64_t c = 0; c < q.shape[3]; ++c) sum.add(scale * at(q, b, t, h, c) * at(k, b, s, kv_head(h), c));
    return sum;
  }
  __device__ Expected dp(int64_t b, int64_t t, int64_t s, int64_t h) const {
    Expected sum;
    for (int64_t c = 0; c < q.shape[3]; ++c) sum.add(at(d_out, b, t, h, c) * at(v, b, s, kv_head(h), c));
    return sum;
  }
  __device__ const RowFacts& of(int64_t b, int64_t t, int64_t h) const { return facts[(b * q.shape[2] + h) * q.shape[1] + t]; }
  // ds = p (dp - delta) scale, with the size of its terms.
  __device__ Expected ds(int64_t b, int64_t t, int64_t s, int64_t h) const {
    const RowFacts& row = of(b, t, h);
    const double p = ::exp(score(b, t, s, h).want - row.lse);
    const Expected d = dp(b, t, s, h);
    return {p * (d.want - row.delta) * scale, p * (d.magnitude + row.delta_size) * size_of_term(scale)};
  }
  // The error of a sum whose terms have this size together: scores, the stored out, and probabilities and ds as bf16.
  __device__ Expected bounded(const Expected& sum, double score) const {
    const double d = static_cast<double>(q.shape[3]),
                 terms = 2 * (d + 8) * (score + 1) + 3 * static_cast<double>(k.shape[1] * q.shape[2] / k.shape[2]) + 64;
    const double u = q.dtype == DType::bf16 ? 3 * kU16 : kU32;
    return {sum.want, (terms * kU32 / (1 - terms * kU32) + u) * sum.magnitude / kU32};
  }
};

__global__ void row_facts(Gradients g, RowFacts* facts, int64_t n) {
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < n; i += int64_t{gridDim.x} * blockDim.x) {
    const int64_t t = i % g.q.shape[1], h = i / g.q.shape[1] % g.q.shape[2], b = i / g.q.shape[1] / g.q.shape[2];
    double max = -1e300, sum = 0;
    RowFacts row = {};
    for (int64_t s = g.first_key(b, t); s <= t; ++s) {
      const Expected score = g.score(b, t, s, h), dp = g.dp(b, t, s, h);
      if (score.magnitude > row.score) row.score = score.magnitude;
      if (score.want > max) {
        const double shrink = ::exp(max - score.want);
        sum *= shrink;
        row.delta *= shrink;
        row.delta_size *= shrink;
        max = score.want;
      }
      const double p = ::exp(score.want - max);
      sum += p;
      row.delta += p * dp.want;
      row.delta_size += p * dp.magnitude;
    }
    row.lse = max + ::log(sum);
    row.delta /= sum;
    row.delta_size /= sum;
    facts[i] = row;
  }
}

struct GradientQ : Gradients {
  __device__ Expected operator()(int64_t i) const {
    const int64_t d = q.shape[3], c = i % d, h = i / d % q.shape[2], t = i / d / q.shape[2] % q.shape[1], b = i / d / q.shape[2] / q.shape[1];
    Expected sum;
    for (int64_t s = first_key(b, t); s <= t; ++s) {
      const Expected each = ds(b, t, s, h);
      const double key = at(k, b, s, kv_head(h), c);
      sum.add(each.want * key, each.magnitude * size_of_term(key));
    }
    return bounded(sum, of(b, t, h).score);
  }
};
struct GradientKV : Gradients {
  bool of_k;
  __device__ Expected operator()(int64_t i) const {
    const int64_t d = q.shape[3], heads = k.shape[2], c = i % d, kv = i / d % heads, s = i / d / heads % k.shape[1], b = i / d / heads / k.shape[1];
    Expected sum;
    double score_size = 0;
    for (int64_t h = kv * (q.shape[2] / heads); h < (kv + 1) * (q.shape[2] / heads); ++h) {
      for (int64_t t = s; t < q.shape[1]; ++t) {
        if (first_key(b, t) > s) continue;
        if (of(b, t, h).score > score_size) score_size = of(b, t, h).score;
        if (of_k) {
          const Expected each = ds(b, t, s, h);
          sum.add(each.want * at(q, b, t, h, c), each.magnitude * size_of_term(at(q, b, t, h, c)));
        } else {
          sum.add(::exp(score(b, t, s, h).want - of(b, t, h).lse) * at(d_out, b, t, h, c));
        }
      }
    }
    return bounded(sum, score_size);
  }
};

}  // namespace

std::vector<Output> outputs(const AttentionBackwardArgs& args, const Memory& memory) {
  const int64_t rows = args.q.size(0) * args.q.size(1) * args.q.size(2);
  RowFacts* facts = nullptr;
  if (!memory.planned()) facts = reinterpret_cast<RowFacts*>(test::device_allocate(static_cast<size_t>(rows) * sizeof(RowFacts)));
  const std::shared_ptr<RowFacts> owned(facts, [](RowFacts* there) { test::device_free(reinterpret_cast<std::byte*>(there)); });
  const Gradients gradients{args.q, args.k, args.v, args.d_out, args.document_start, static_cast<double>(args.scale), args.window, facts};
  HEDDLE_LAUNCH(row_facts, static_cast<unsigned>(std::min<int64_t>((rows + 127) / 128, 1 << 20)), 128, 0, Stream{}, gradients, facts, rows);
  const auto d = static_cast<double>(args.q.size(3)), keys = static_cast<double>(args.k.size(1));
  const double cost = 2 * d * keys, group = static_cast<double>(args.q.size(2) / args.k.size(2));
  std::vector<Output> all = {what("dq", args.dq, 1, cost, GradientQ{gradients}), what("dk", args.dk, 1, cost * group, GradientKV{gradients, true}),
                             what("dv", args.dv, 1, cost * group, GradientKV{gradients, false})};
  for (Output& output : all) output.reference = [owned, reference = output.reference](const Sample& sample) { reference(sample); };
  return all;
}

}  // namespace heddle::bench
