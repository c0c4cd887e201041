// Optimizer updates over flat arena ranges. All of them read lr, clip_scale, apply and adam_t from StepState in device memory.
#pragma once

#include <array>
#include <span>

#include "kernels/api/kernel.h"
#include "kernels/api/step_rules.h"
#include "kernels/api/step_state.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

inline constexpr int64_t kArenaBlock = 128;  // parameters start at multiples of it: one group id a block
inline constexpr int kMaxGroups = 16;

struct OptimizerGroup {
  float lr = 0;            // base learning rate; the step's rate is lr * step->lr
  float weight_decay = 0;  // decoupled (Loshchilov and Hutter 2019): master -= rate * weight_decay * master
};

// AdamW (Kingma and Ba 2015; Loshchilov and Hutter 2019) over n elements in blocks of 128, in one launch.
//   g = grad * step->clip_scale; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; t = step->adam_t + 1
//   master -= rate ( (m / (1-b1^t)) / (sqrt(v / (1-b2^t)) + eps) + weight_decay master );  value = master rounded to its dtype
// grads f32 (f64 for f64 values), masters, m, v the dtype of grads; master may be value itself (fp32 values are their own masters).
// Moments and masters are packed: block b of them belongs to block arena_block[b] of value and grad (and of master, where that is value). Without the
// table they are the same. step->apply == 0: nothing changes.
struct AdamWArgs {
  View value, master, grad;  // value, grad (N), N a multiple of 128; master (n), or value
  View m, v;                 // (n), n a multiple of 128; N = n without arena_block
  View group_of_block;       // (n / 128) u8
  View arena_block;          // (n / 128) i32, ascending; may be absent
  std::array<OptimizerGroup, kMaxGroups> groups{};
  float beta1 = 0.9f, beta2 = 0.95f, eps = 1e-8f;
  const StepState* step = nullptr;
};

// First half of Muon (Jordan et al. 2024): momentum = beta momentum + (1-beta) g; out = nesterov ? (1-beta) g + beta momentum : momentum,
// with g = grad * step->clip_scale. All (n); out f32 or bf16. step->apply == 0: momentum is left alone and out is zero.
struct MuonMomentumArgs {
  View grad, momentum, out;
  float beta = 0.95f;
  bool nesterov = true;
  const StepState* step = nullptr;
};

// out = x / (||x||_2 + eps), the Frobenius norm of the whole view; x, out (R, C) dense of any floating dtypes, out may be x. The norm is summed in
// f64 in a fixed order.
struct NormalizeArgs {
  View x, out;
  float eps = 1e-7f;
  std::span<std::byte> scratch;
};

// Second half: master -= rate ( scale update + weight_decay master ), value = master rounded. All (n). step->apply == 0: nothing changes.
struct MuonApplyArgs {
  View value, master, update;
  OptimizerGroup group;
  float scale = 1;
  const StepState* step = nullptr;
};

// Decides about the step from the squared norm of the whole gradient, its loss and what went wrong: fills all that StepState says of this step, and
// brings its statistics up to date. The same bits on every rank where `loss` and `faults` are gathered from all.
//   loss = the ranks' shares added in rank order; z-scores against the statistics before this step; a step that stands out, or is not finite, moves
//   no average; weight of a new value in an average: max(1 - kSpikeDecay, 4 / (observations + 4)), at first a memory of the last quarter of the run,
//   since the steep fall of the first steps must not pass for noise for hundreds more
// A fault, a value that is not finite, or a spike (with spike_z > 0, from kSpikeWarmUp observations on) withholds the update: apply 0.
struct FinishNormArgs {
  View squared_norm;  // (1) f64 or f32
  StepState* step = nullptr;
  View loss;    // (ranks) or () f64 or f32: shares of the step's mean loss; absent: it is 0 and not looked at
  View faults;  // (ranks) i32, not 0: a fault; may be absent
};

// After the optimizers: adam_t += apply, skipped += 1 - apply, step += 1, rng_stream = step.
struct AdvanceStepArgs {
  StepState* step = nullptr;
};

// What in these arguments contradicts the above; nullopt: nothing.
Refusal contradiction(const AdamWArgs&);
Refusal contradiction(const MuonMomentumArgs&);
Refusal contradiction(const NormalizeArgs&);
Refusal contradiction(const MuonApplyArgs&);
Refusal contradiction(const FinishNormArgs&);
Refusal contradiction(const AdvanceStepArgs&);

// What finish_step (kernels/api/step_rules.h) is to look at.
StepFinds step_finds(const FinishNormArgs&);

extern Kernel<AdamWArgs> adamw;
extern Kernel<MuonMomentumArgs> muon_momentum;
extern Kernel<NormalizeArgs> normalize;
extern Kernel<MuonApplyArgs> muon_apply;
extern Kernel<FinishNormArgs> finish_norm;
extern Kernel<AdvanceStepArgs> advance_step;

}  // namespace heddle::kernels
