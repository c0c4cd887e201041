// Softmax cross entropy over rows of logits, forward and backward, in two phases: ranks that share a vocabulary exchange in between what each found.
//
//   logits (N, V): of the tokens `shard` says; what is padding there is never read
//   targets (N) i32, tokens of the whole vocabulary; ignore_index marks rows without a target
//
// Phase 1, cross_entropy_stats: what this shard knows of row n, as RowStats (three numbers)
//   stats (N, 3) <- max logits[n],  sum exp(logits[n] - max),  logits[n][target]; f32 (f64 for f64)
// -Inf, 0, -Inf of a row that is ignored and of a shard that is all padding; the third is -Inf where another shard holds the target.
// A target outside the whole vocabulary that is not ignore_index is a Fault naming the row; what is written then is of no use.
//
// Phase 2, cross_entropy: the loss from the statistics of all S shards, and the gradient of this one
//   stats (S, N, 3) in the order of the shards, joined one after the other; S = 1: phase 1's own
//   weights (N) f32 or the dtype of the losses, a factor on all that row n gives; absent: 1
//   lse = max + log sum;  loss[n] = weight[n] (lse - logits[n][target] + z_loss lse^2)         (z-loss: Chowdhery et al. 2022, PaLM)
//   losses (N) <- loss[n], 0 for ignored rows; f32 (f64 for f64)
//   nll (N) <- loss[n] without the z term; may be absent
//   write_gradient: logits[n][v] <- scale step->loss_scale weight[n] ((1 + 2 z_loss lse) softmax - [v is the target]), 0 for ignored rows and
//   padding, in place; else logits may be absent
// step may be null (loss_scale 1). The targets are those that phase 1 accepted. On a GPU an exponential below 2^-126 may be 0.
#pragma once

#include <cmath>

#include "kernels/api/fault.h"
#include "kernels/api/kernel.h"
#include "kernels/api/step_state.h"
#include "kernels/api/types.h"
#include "kernels/api/vocab_shard.h"

namespace heddle::kernels {

// A row's softmax as far as some shards know it.
template <class T>
struct RowStats {
  T max, sum, target;

  // Takes in what the next shard knows. Exact when one of the two knows nothing; a NaN stays in the sum.
  HEDDLE_HOST_DEVICE void join(const RowStats& next) {
    if (next.max > max) {
      sum = sum * std::exp(max - next.max) + next.sum;
      max = next.max;
    } else {
      sum += next.max == max ? next.sum : next.sum * std::exp(next.max - max);  // both -Inf: nothing yet, and no -Inf - -Inf
    }
    if (next.target > target) target = next.target;
  }
};

struct CrossEntropyStatsArgs {
  View logits, targets;
  View stats;
  int32_t ignore_index = -1;
  VocabShard shard = {};
  Fault* fault = nullptr;
};  // namespace heddle::kernels

struct CrossEntropyArgs {
  View logits, targets, stats;
  View losses, nll;
  int32_t ignore_index = -1;
  float z_loss = 0, scale = 1;
  bool write_gradient = false;
  const StepState* step = nullptr;
  View weights = {};
  VocabShard shard = {};
};

// What in these arguments contradicts the above; nullopt: nothing.
Refusal contradiction(const CrossEntropyStatsArgs&);
Refusal contradiction(const CrossEntropyArgs&);

extern Kernel<CrossEntropyStatsArgs> cross_entropy_stats;
extern Kernel<CrossEntropyArgs> cross_entropy;

}  // namespace heddle::kernels
