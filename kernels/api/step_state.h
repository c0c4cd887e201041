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

// Spikes. Loss and gradient norm are compared with their exponential moving averages by z-score (as ZClip, arXiv:2504.02507, does for the norm; the
// norm in logarithms, because its noise is multiplicative).
inline constexpr double kSpikeDecay = 0.99;  // of the moving averages: about 100 steps of memory
inline constexpr double kSpikeWarmUp = 100;  // observations before an update is withheld
inline constexpr double kLeastLossNoise =
    1e-3;  // relative: below it noise is not believed; a constant series must not turn the last digit into a spike
inline constexpr double kLeastNormNoise = 1e-2;  // of the logarithm

// What the device remembers of earlier steps to tell which one stands out. Steps that do, and those that are not finite, move no average.
struct SpikeStatistics {
  double loss_mean = 0, loss_variance = 0, norm_mean = 0, norm_variance = 0;  // norm: of log(gradient norm)
  double observations = 0;
  double spike_run = 0, nonfinite_run = 0;  // how many of the latest steps in a row
};

enum SpikeBits : int32_t { kLossSpike = 1, kNormSpike = 2 };

struct StepInput {
  float lr = 0;          // schedule(step): the factor in [0, 1] on every group's base learning rate
  float loss_scale = 1;  // 1 / valid targets of the whole step, over all ranks and micro-steps
  float clip_norm = 0;   // global-norm limit; <= 0: none
  double spike_z = 0;    // the update is withheld when loss or gradient norm is as many deviations above its mean; <= 0: never. The last member: no
                         // padding behind it that StepState could use
};

struct StepState : StepInput {  // the input comes first: it is overwritten in place
  // what the device keeps from step to step; the host sets it when a run goes on from a checkpoint
  uint64_t step = 0;        // optimizer steps done before this one
  uint64_t rng_stream = 0;  // RngKey::stream of this step's dropout: step
  uint64_t adam_t = 0;      // updates applied so far: a skipped step does not advance bias correction
  uint64_t skipped = 0;     // steps whose update was withheld
  SpikeStatistics spikes;
  // what it finds out about this step
  double loss = 0;                // mean negative log likelihood of the valid targets, as finish_norm was given it
  double loss_z = 0, norm_z = 0;  // deviations above the means before this step; NaN while there is nothing to compare with
  float grad_norm = 0;            // of the whole gradient, before clipping
  float clip_scale = 1;           // min(1, clip_norm / grad_norm)
  float max_loss = 0;             // what the loss was held against, and
  float max_grad_norm = 0;        // the norm; 0: nothing
  int32_t finite = 1;             // 0: the loss or grad_norm is NaN or Inf, or grad_norm * clip_scale is above kMostGradNorm
  int32_t spike = 0;              // SpikeBits
  int32_t fault = 0;              // 1: a kernel of some rank met data that it cannot use (kernels/api/fault.h)
  int32_t apply = 1;              // 0: optimizers leave every value and moment as it is
};

}  // namespace heddle
