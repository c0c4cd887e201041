// Softmax cross entropy over rows of logits, forward and backward in one pass over the data.
//
//   logits (N, V); targets (N) i32, ignore_index marks rows without a target
//   lse = log sum exp(logits[n]);  loss[n] = lse - logits[n][target] + z_loss lse^2          (z-loss: Chowdhery et al. 2022, PaLM)
//   losses (N) <- loss[n], 0 for ignored rows; f32 (f64 for f64)
//   nll (N) <- loss[n] without the z term; may be absent
//   write_gradient: logits[n][v] <- scale step->loss_scale ((1 + 2 z_loss lse) softmax - [v == target]), 0 for ignored rows, in place
// step may be null (loss_scale 1). A target outside [0, V) that is not ignore_index is a Fault naming the row; what is written then is of no use.
#pragma once

#include "kernels/api/fault.h"
#include "kernels/api/kernel.h"
#include "kernels/api/step_state.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

struct CrossEntropyArgs {
  View logits, targets;
  View losses, nll;
  int32_t ignore_index = -1;
  float z_loss = 0, scale = 1;
  bool write_gradient = false;
  const StepState* step = nullptr;
  Fault* fault = nullptr;
};

extern Kernel<CrossEntropyArgs> cross_entropy;

}  // namespace heddle::kernels
