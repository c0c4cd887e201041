// Optimizer updates in float64, one element at a time.
#pragma once

#include "kernels/api/optimizer.h"
#include "tests/oracles/values.h"

namespace heddle::oracle {

struct AdamWResult {
  Values master, m, v;
};

inline AdamWResult adamw(const kernels::AdamWArgs& args) {
  const int64_t n = args.grad.numel();
  AdamWResult out{Values(n), Values(n), Values(n)};
  const double t = static_cast<double>(args.step->adam_t + 1), b1 = args.beta1, b2 = args.beta2;
  for (int64_t i = 0; i < n; ++i) {
    const kernels::OptimizerGroup& group = args.groups[static_cast<size_t>(test::element(args.group_of_block, i / kernels::kArenaBlock))];
    const double g = test::element(args.grad, i) * args.step->clip_scale, old_m = test::element(args.m, i), old_v = test::element(args.v, i);
    const double m = b1 * old_m + (1 - b1) * g, v = b2 * old_v + (1 - b2) * g * g, m_size = b1 * std::abs(old_m) + (1 - b1) * std::abs(g);
    // 1 - b is exact in f32 for b in [1/2, 1]
    out.m.add(i, m, m_size);
    out.v.add(i, v);
    const double rate = static_cast<double>(group.lr) * args.step->lr, old = test::element(args.master, i);
    const double scale = 1 / (1 - std::pow(b1, t)) / (std::sqrt(v / (1 - std::pow(b2, t))) + args.eps);
    out.master.add(i, old - rate * (m * scale + group.weight_decay * old),
                   std::abs(old) + rate * (m_size * scale + std::abs(group.weight_decay * old)));
  }
  return out;
}

}  // namespace heddle::oracle
