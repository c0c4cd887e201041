// Softmax and cross entropy: kernels/api/reduce.h, cross_entropy.h. The magnitudes are those of tests/oracles/cross_entropy.h.
#include "bench/gpu/reference.cuh"

namespace heddle::bench {
namespace {

using kernels::CrossEntropyArgs;
using kernels::CrossEntropyStatsArgs;
using kernels::SoftmaxArgs;
using kernels::SoftmaxBackwardArgs;

struct SoftmaxRow {
  double max = -1e300, sum = 0, distances = 0;  // of exp(x - max), and of that times 1 + max - x
};
__device__ SoftmaxRow softmax_row(const View& x, int64_t row, int64_t columns, double scale) {
  SoftmaxRow r;
  for (int64_t c = 0; c < columns; ++c) {
    const double v = load(x, row, c) * scale;
    if (v > r.max) r.max = v;
  }
  for (int64_t c = 0; c < columns; ++c) {
    const double v = load(x, row, c) * scale, p = ::exp(v - r.max);
    r.sum += p;
    r.distances += p * (1 + r.max - v);
  }
  return r;
}

struct Softmax {
  View x;
  double scale;
  __device__ Expected operator()(int64_t i) const {
    const int64_t columns = x.shape[1], row = i / columns;
    const SoftmaxRow r = softmax_row(x, row, columns, scale);
    const double v = load(x, row, i % columns) * scale, p = ::exp(v - r.max) / r.sum;
    return {p, p * (1 + r.max - v + size_of_term(r.max))};
  }
};
struct SoftmaxBack {
  View y, dy;
  double scale;
  __device__ Expected operator()(int64_t i) const {
    const int64_t columns = y.shape[1], row = i / columns, c = i % columns;
    Expected dot;
    for (int64_t j = 0; j < columns; ++j) dot.add(load(dy, row, j) * load(y, row, j));
    return {scale * (load(dy, row, c) - dot.want) * load(y, row, c),
            size_of_term(scale) * (size_of_term(load(dy, row, c)) + dot.magnitude) * size_of_term(load(y, row, c))};
  }
};

struct Stats {
  View logits, targets;
  int32_t ignored;
  __device__ Expected operator()(int64_t i) const {
    const int64_t row = i / 3, target = static_cast<int64_t>(load(targets, row));
    const SoftmaxRow r = softmax_row(logits, row, logits.shape[1], 1);
    if (i % 3 == 0) return {r.max, 0};
    if (i % 3 == 1) return {r.sum, r.distances};
    return {load(logits, row, target), 0};
  }
};
struct CrossEntropy {
  View logits, targets, weights;
  double z, scale;
  bool with_z;

  __device__ double weight(int64_t row) const { return weights.data != nullptr ? load(weights, row) : 1; }
};
struct CrossEntropyLoss : CrossEntropy {
  __device__ Expected operator()(int64_t row) const {
    const SoftmaxRow r = softmax_row(logits, row, logits.shape[1], 1);
    const double log_sum = ::log(r.sum), lse = r.max + log_sum, distance = r.max - load(logits, row, static_cast<int64_t>(load(targets, row)));
    const double lse_size = 1 + log_sum + size_of_term(r.max), zed = with_z ? z : 0;
    return {weight(row) * (log_sum + distance + zed * lse * lse), size_of_term(weight(row)) * (1 + log_sum + distance + zed * lse_size * lse_size)};
  }
};
struct CrossEntropyGradient : CrossEntropy {
  __device__ Expected operator()(int64_t i) const {
    const int64_t columns = logits.shape[1], row = i / columns, c = i % columns;
    const SoftmaxRow r = softmax_row(logits, row, columns, 1);
    const double lse = r.max + ::log(r.sum), lse_size = 1 + ::log(r.sum) + size_of_term(r.max), x = load(logits, row, c);
    const double p = ::exp(x - r.max) / r.sum, hit = c == static_cast<int64_t>(load(targets, row)) ? 1 : 0;
    return {weight(row) * scale * ((1 + 2 * z * lse) * p - hit),
            size_of_term(weight(row) * scale) * ((1 + 2 * z * lse_size) * p * (1 + r.max - x) + hit)};
  }
};

}  // namespace

std::vector<Output> outputs(const SoftmaxArgs& args, const Memory& memory) {
  const auto columns = static_cast<double>(args.x.size(1));
  return {what("out", args.out, columns + 12, 2 * columns, Softmax{memory.before(args.x), static_cast<double>(args.scale)})};
}
std::vector<Output> outputs(const SoftmaxBackwardArgs& args, const Memory&) {
  const auto columns = static_cast<double>(args.y.size(1));
  return {what("dx", args.dx, columns + 5, 2 * columns, SoftmaxBack{args.y, args.dy, static_cast<double>(args.scale)})};
}
std::vector<Output> outputs(const CrossEntropyStatsArgs& args, const Memory&) {
  const auto columns = static_cast<double>(args.logits.size(1));
  return {what("stats", args.stats, columns + 12, 2 * columns, Stats{args.logits, args.targets, args.ignore_index})};
}
// Of one shard, every row with a target, step absent.
std::vector<Output> outputs(const CrossEntropyArgs& args, const Memory& memory) {
  const auto columns = static_cast<double>(args.logits.size(1)), terms = columns + 20;
  CrossEntropy entropy{memory.before(args.logits),      args.targets, args.weights, static_cast<double>(args.z_loss),
                       static_cast<double>(args.scale), true};
  std::vector<Output> all = {what("losses", args.losses, terms, 2 * columns, CrossEntropyLoss{entropy})};
  if (args.write_gradient) all.push_back(what("gradient", args.logits, terms, 2 * columns, CrossEntropyGradient{entropy}));
  entropy.with_z = false;
  if (args.nll) all.push_back(what("nll", args.nll, terms, 2 * columns, CrossEntropyLoss{entropy}));
  return all;
}

}  // namespace heddle::bench
