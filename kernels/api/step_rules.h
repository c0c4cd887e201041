// What finish_norm, advance_step and AdamW's bias correction work out (kernels/api/optimizer.h): one thread's work, the same code on every device.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "kernels/api/step_state.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

// Numbers in the memory of whoever reads them.
struct Numbers {
  const void* data = nullptr;  // f64 or f32; null: absent
  int64_t count = 0;
  bool f64 = false;

  template <class T>
  HEDDLE_HOST_DEVICE T in_order() const {
    T sum = 0;
    for (int64_t i = 0; i < count; ++i) sum = i == 0 ? static_cast<const T*>(data)[0] : sum + static_cast<const T*>(data)[i];
    return sum;
  }
  // Added one after the other in their own type.
  HEDDLE_HOST_DEVICE double sum() const { return f64 ? in_order<double>() : static_cast<double>(in_order<float>()); }
};

// What a step has come to, on all ranks.
struct StepFinds {
  Numbers squared_norm;  // one
  Numbers loss;          // a share a rank, or absent
  const int32_t* faults = nullptr;
  int64_t fault_count = 0;
};

// 1 / (1 - beta^(t + 1)): what undoes the zeros a moment starts from, t updates after the first.
HEDDLE_HOST_DEVICE inline double bias_correction(float beta, uint64_t t) {
  return 1 / (1 - std::pow(static_cast<double>(beta), static_cast<double>(t + 1)));
}

HEDDLE_HOST_DEVICE inline void move_average(double& mean, double& variance, double value, double weight) {
  const double delta = value - mean;
  mean += weight * delta;
  variance = (1 - weight) * (variance + weight * delta * delta);
}

// Compares a finite step with those before it.
HEDDLE_HOST_DEVICE inline void look_for_spikes(StepState& s, bool has_loss) {
  SpikeStatistics& known = s.spikes;
  const auto deviation = [](double variance, double least) {
    const double root = std::sqrt(variance);
    return root < least ? least : root;
  };
  const double loss_noise = deviation(known.loss_variance, kLeastLossNoise * std::abs(known.loss_mean));
  const double norm_noise = deviation(known.norm_variance, kLeastNormNoise);
  // A zero gradient has no logarithm; it is no spike either.
  const double log_norm = s.grad_norm > 0 ? std::log(static_cast<double>(s.grad_norm)) : known.norm_mean;
  if (known.observations >= 2) {
    s.loss_z = (s.loss - known.loss_mean) / loss_noise;
    s.norm_z = (log_norm - known.norm_mean) / norm_noise;
  }
  if (s.spike_z > 0 && known.observations >= kSpikeWarmUp) {
    s.max_grad_norm = static_cast<float>(std::exp(known.norm_mean + s.spike_z * norm_noise));
    if (s.grad_norm > s.max_grad_norm) s.spike |= kNormSpike;
    if (has_loss) s.max_loss = static_cast<float>(known.loss_mean + s.spike_z * loss_noise);
    if (has_loss && static_cast<float>(s.loss) > s.max_loss) s.spike |= kLossSpike;
  }
  if (s.spike) {
    known.spike_run += 1;
    return;
  }
  known.spike_run = 0;
  const double share = 4 / (known.observations + 4), weight = 1 - kSpikeDecay < share ? share : 1 - kSpikeDecay;
  if (has_loss) move_average(known.loss_mean, known.loss_variance, s.loss, weight);
  move_average(known.norm_mean, known.norm_variance, log_norm, weight);
  known.observations += 1;
}

HEDDLE_HOST_DEVICE inline void finish_step(StepState& s, const StepFinds& found) {
  const bool has_loss = found.loss.data != nullptr;
  const double squared = found.squared_norm.sum();
  int32_t fault = 0;
  for (int64_t rank = 0; rank < found.fault_count; ++rank) fault |= found.faults[rank] != 0 ? 1 : 0;
  s.loss = has_loss ? found.loss.sum() : 0;
  s.loss_z = s.norm_z = std::numeric_limits<double>::quiet_NaN();
  s.grad_norm = static_cast<float>(std::sqrt(squared));
  const bool clip = std::isfinite(s.grad_norm) && s.clip_norm > 0 && s.grad_norm > s.clip_norm;
  s.clip_scale = clip ? s.clip_norm / s.grad_norm : 1.0f;
  s.max_loss = s.max_grad_norm = 0;
  s.spike = 0;
  s.fault = fault;
  s.finite = s.grad_norm * s.clip_scale <= kMostGradNorm && std::isfinite(static_cast<float>(s.loss)) ? 1 : 0;  // false for a NaN
  if (fault == 0 && s.finite) {
    s.spikes.nonfinite_run = 0;
    look_for_spikes(s, has_loss);
  } else if (fault == 0) {
    s.spikes.nonfinite_run += 1;
  }
  s.apply = s.finite && !s.spike && !fault ? 1 : 0;
}

HEDDLE_HOST_DEVICE inline void end_step(StepState& s) {
  s.adam_t += static_cast<uint64_t>(s.apply);
  s.skipped += static_cast<uint64_t>(1 - s.apply);
  s.step += 1;
  s.rng_stream = s.step;
}

}  // namespace heddle::kernels
