// Softmax and cross entropy in float64.
#pragma once

#include <algorithm>

#include "kernels/api/cross_entropy.h"
#include "tests/oracles/values.h"

namespace heddle::oracle {

struct SoftmaxRow {
  double max = 0, sum = 0;  // of scale x, exp(scale x - max)
  std::vector<double> p;
};

inline SoftmaxRow softmax(const std::vector<double>& x, double scale = 1) {
  SoftmaxRow row;
  row.max = -INFINITY;
  for (double v : x) row.max = std::max(row.max, v * scale);
  for (double v : x) row.sum += std::exp(v * scale - row.max);
  for (double v : x) row.p.push_back(std::exp(v * scale - row.max) / row.sum);
  return row;
}

// Row n of an (N, C) view.
inline std::vector<double> row_of(const View& v, int64_t n) {
  std::vector<double> row;
  for (int64_t c = 0; c < v.size(1); ++c) row.push_back(test::element(v, n * v.size(1) + c));
  return row;
}

struct CrossEntropyResult {
  Values losses, nll, gradient;
};

// An exponent d = x - max is rounded before exp: its relative error scales with |d|.
inline CrossEntropyResult cross_entropy(const kernels::CrossEntropyArgs& args) {
  const int64_t n = args.logits.size(0), v = args.logits.size(1);  // of the whole vocabulary
  CrossEntropyResult out{Values(n), Values(n), Values(n * v)};
  const double scale = static_cast<double>(args.scale) * (args.step ? static_cast<double>(args.step->loss_scale) : 1.0), z = args.z_loss;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t target = static_cast<int64_t>(test::element(args.targets, i));
    if (target == args.ignore_index) continue;
    const std::vector<double> x = row_of(args.logits, i);
    const SoftmaxRow row = softmax(x);
    const double weight = args.weights ? test::element(args.weights, i) : 1, size = std::abs(weight);
    const double log_sum = std::log(row.sum), lse = row.max + log_sum, distance = row.max - x[static_cast<size_t>(target)];
    out.nll.add(i, weight * (log_sum + distance), size * (1 + log_sum + distance));
    const double lse_size = 1 + log_sum + std::abs(row.max);
    out.losses.add(i, weight * (log_sum + distance + z * lse * lse), size * (1 + log_sum + distance + z * lse_size * lse_size));
    for (int64_t c = 0; c < v; ++c) {
      const double p = row.p[static_cast<size_t>(c)], d = row.max - x[static_cast<size_t>(c)], hit = c == target ? 1 : 0;
      out.gradient.add(i * v + c, weight * scale * ((1 + 2 * z * lse) * p - hit),
                       size * std::abs(scale) * ((1 + 2 * std::abs(z) * lse_size) * (p > 0 ? p * (1 + d) : 0) + hit));
    }
  }
  return out;
}

}  // namespace heddle::oracle
