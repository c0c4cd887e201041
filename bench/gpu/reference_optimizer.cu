// Optimizer updates: kernels/api/optimizer.h, with every tensor in arena order. The magnitudes are those of tests/oracles/optimizer.h.
#include "bench/gpu/reference.cuh"

namespace heddle::bench {
namespace {

using namespace kernels;  // NOLINT: a program's own source

struct AdamW {
  View master, grad, m, v, group_of_block;
  std::array<OptimizerGroup, kMaxGroups> groups;
  double b1, b2, eps;
  const StepState* step;

  __device__ double g(int64_t i) const { return load(grad, i) * static_cast<double>(step->clip_scale); }
  __device__ double next_m(int64_t i) const { return b1 * load(m, i) + (1 - b1) * g(i); }
  __device__ double next_m_size(int64_t i) const { return b1 * size_of_term(load(m, i)) + (1 - b1) * size_of_term(g(i)); }
  __device__ double next_v(int64_t i) const { return b2 * load(v, i) + (1 - b2) * g(i) * g(i); }
};
struct AdamWM : AdamW {
  __device__ Expected operator()(int64_t i) const { return {next_m(i), next_m_size(i)}; }
};
struct AdamWV : AdamW {
  __device__ Expected operator()(int64_t i) const { return {next_v(i), size_of_term(next_v(i))}; }
};
struct AdamWMaster : AdamW {
  __device__ Expected operator()(int64_t i) const {
    const OptimizerGroup& group = groups[static_cast<size_t>(load(group_of_block, i / kArenaBlock))];
    const auto t = static_cast<double>(step->adam_t + 1);
    const double rate = static_cast<double>(group.lr) * static_cast<double>(step->lr), old = load(master, i),
                 decay = static_cast<double>(group.weight_decay);
    const double scale = 1 / (1 - ::pow(b1, t)) / (::sqrt(next_v(i) / (1 - ::pow(b2, t))) + eps);
    return {old - rate * (next_m(i) * scale + decay * old), size_of_term(old) + rate * (next_m_size(i) * scale + size_of_term(decay * old))};
  }
};

struct Momentum {
  View grad, momentum;
  double beta;
  const StepState* step;
  bool out, nesterov;
  __device__ Expected operator()(int64_t i) const {
    const double g = load(grad, i) * static_cast<double>(step->clip_scale);
    Expected next;
    next.add(beta * load(momentum, i));
    next.add((1 - beta) * g);
    if (!out || !nesterov) return next;
    Expected ahead;
    ahead.add((1 - beta) * g);
    ahead.add(beta * next.want, beta * next.magnitude);
    return ahead;
  }
};
struct MuonMaster {
  View master, update;
  OptimizerGroup group;
  double scale;
  const StepState* step;
  __device__ Expected operator()(int64_t i) const {
    const double rate = static_cast<double>(group.lr) * static_cast<double>(step->lr), old = load(master, i);
    Expected next;
    next.add(old);
    next.add(-rate * scale * load(update, i));
    next.add(-rate * static_cast<double>(group.weight_decay) * old);
    return next;
  }
};

}  // namespace

std::vector<Output> outputs(const AdamWArgs& args, const Memory& memory) {
  const AdamW adamw{memory.before(args.master),    args.grad,   memory.before(args.m),           memory.before(args.v),
                    args.group_of_block,           args.groups, static_cast<double>(args.beta1), static_cast<double>(args.beta2),
                    static_cast<double>(args.eps), args.step};
  return {what("master", args.master, 20, 5, AdamWMaster{adamw}), what("m", args.m, 4, 2, AdamWM{adamw}), what("v", args.v, 5, 2, AdamWV{adamw}),
          what("value", args.value, 20, 5, AdamWMaster{adamw})};
}
std::vector<Output> outputs(const MuonMomentumArgs& args, const Memory& memory) {
  const Momentum momentum{args.grad, memory.before(args.momentum), static_cast<double>(args.beta), args.step, false, args.nesterov};
  Momentum out = momentum;
  out.out = true;
  return {what("momentum", args.momentum, 4, 2, momentum), what("out", args.out, 6, 2, out)};
}
std::vector<Output> outputs(const MuonApplyArgs& args, const Memory& memory) {
  const MuonMaster master{memory.before(args.master), args.update, args.group, static_cast<double>(args.scale), args.step};
  return {what("master", args.master, 5, 2, master), what("value", args.value, 5, 2, master)};
}

}  // namespace heddle::bench
