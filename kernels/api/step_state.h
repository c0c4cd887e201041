// Time, as a step's kernels see it: what the host says (StepInput), what the step keeps and finds (StepState), both in device memory.
//
// Kernels take a pointer and never the values, so that a captured step can be replayed. The host sends a StepInput before a step and reads a copy of
// the StepState after it; it never reads, changes and writes one back.
#pragma once

#include <cstdint>

namespace heddle {

// The largest gradient norm, after clipping, whose square is finite in f32. Above it an element's second moment could become infinite, and would
// stay so: the update is withheld like one with a NaN.
inline constexpr float kMostGradNorm = 1.84467429741979238e19f;  // the largest float below 2^64

struct StepInput {
  float lr = 0;             // schedule(step): the factor in [0, 1] on every group's base learning rate
  float loss_scale = 1;     // 1 / valid targets of the whole step, over all ranks and micro-steps
  float clip_norm = 0;      // global-norm limit; <= 0: none
  float max_grad_norm = 0;  // above it the update is skipped (spike guard); <= 0: none
  float max_loss = 0;       // the same of the step's mean loss
};

struct StepState : StepInput {  // the input comes first: it is overwritten in place
  // what the device keeps from step to step; the host sets it when a run goes on from a checkpoint
  uint64_t step = 0;        // optimizer steps done before this one
  uint64_t rng_stream = 0;  // RngKey::stream of this step's dropout: step
  uint64_t adam_t = 0;      // updates applied so far: a skipped step does not advance bias correction
  uint64_t skipped = 0;     // steps whose update was withheld
  // what it finds out about this step
  double loss = 0;       // mean negative log likelihood of the valid targets, as finish_norm was given it
  float grad_norm = 0;   // of the whole gradient, before clipping
  float clip_scale = 1;  // min(1, clip_norm / grad_norm)
  int32_t finite = 1;    // 0: the loss or grad_norm is NaN or Inf, or grad_norm * clip_scale is above kMostGradNorm
  int32_t apply = 1;     // 0: optimizers leave every value and moment as it is
};

}  // namespace heddle
