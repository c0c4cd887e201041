// Attention, one output element at a time: kernels/api/attention.h.
#include "bench/gpu/reference.cuh"

namespace heddle::bench {
namespace {

using kernels::AttentionForwardArgs;

constexpr double kU32 = 0x1p-24, kU16 = 0x1p-8;

struct Attention {
  View q, k, v, start;
  double scale;
  int64_t window;

  __device__ int64_t first_key(int64_t b, int64_t t, int64_t position) const {
    int64_t first = start.data != nullptr ? static_cast<int64_t>(load(start, b, t)) : 0;
    if (window > 0 && position - window + 1 > first) first = position - window + 1;
    return first;
  }
  __device__ int64_t at(const View& view, int64_t b, int64_t t, int64_t h) const {
    return b * view.stride[0] + t * view.stride[1] + h * view.stride[2];
  }

  struct Row {
    double max = -1e300, sum = 0;      // of exp(score - max)
    double value = 0, value_size = 0;  // of probability x value, and of its absolute value
    double score = 0;                  // the largest sum of |scale q k|: what a score's error scales with
    __device__ double probability_error(double d, double keys) const {
      const double n = d + 8, score_error = n * kU32 / (1 - n * kU32) * (score + 1), m = keys + 16;
      return 2 * score_error + m * kU32 / (1 - m * kU32);
    }
  };
  // Of query (b, t, h) and column c of its values, with a running maximum.
  __device__ Row row(int64_t b, int64_t t, int64_t h, int64_t c) const {
    Row r;
    const int64_t d = q.shape[3], position = k.shape[1] - q.shape[1] + t, kv = h / (q.shape[2] / k.shape[2]);
    for (int64_t j = first_key(b, t, position); j <= position; ++j) {
      double s = 0, size = 0;
      for (int64_t i = 0; i < d; ++i) {
        const double term = scale * load(q, at(q, b, t, h) + i) * load(k, at(k, b, j, kv) + i);
        s += term;
        size += size_of_term(term);
      }
      if (size > r.score) r.score = size;
      if (s > r.max) {
        const double shrink = ::exp(r.max - s);
        r.sum *= shrink;
        r.value *= shrink;
        r.value_size *= shrink;
        r.max = s;
      }
      const double p = ::exp(s - r.max), x = load(v, at(v, b, j, kv) + c);
      r.sum += p;
      r.value += p * x;
      r.value_size += p * size_of_term(x);
    }
    return r;
  }
};

// What is returned as a magnitude is the error itself, in units of one rounding: probabilities are rounded to bf16 before they meet the values.
struct AttentionOut : Attention {
  DType dtype;
  __device__ Expected operator()(int64_t i) const {
    const int64_t d = q.shape[3], c = i % d, h = i / d % q.shape[2], t = i / d / q.shape[2] % q.shape[1], b = i / d / q.shape[2] / q.shape[1];
    const Row r = row(b, t, h, c);
    const double error = (2 * r.probability_error(static_cast<double>(d), static_cast<double>(k.shape[1])) + (dtype == DType::bf16 ? kU16 : kU32)) *
                         r.value_size / r.sum;
    return {r.value / r.sum, error / kU32};
  }
};
struct AttentionLse : Attention {
  __device__ Expected operator()(int64_t i) const {
    const int64_t t = i % q.shape[1], h = i / q.shape[1] % q.shape[2], b = i / q.shape[1] / q.shape[2];
    const Row r = row(b, t, h, 0);
    const double lse = r.max + ::log(r.sum);
    const double error = r.probability_error(static_cast<double>(q.shape[3]), static_cast<double>(k.shape[1])) + 8 * kU32 * size_of_term(lse);
    return {lse, error / kU32};
  }
};

}  // namespace

std::vector<Output> outputs(const AttentionForwardArgs& args, const Memory&) {
  const Attention attention{args.q, args.k, args.v, args.document_start, static_cast<double>(args.scale), args.window};
  const auto d = static_cast<double>(args.q.size(3));
  double keys = static_cast<double>(args.k.size(1));
  if (args.window > 0) keys = std::min(keys, static_cast<double>(args.window));
  std::vector<Output> all = {what("out", args.out, 1, keys * (2 * d + 1), AttentionOut{attention, args.q.dtype})};
  if (args.lse) all.push_back(what("lse", args.lse, 1, keys * (2 * d + 1), AttentionLse{attention}));
  return all;
}

}  // namespace heddle::bench
