// The kernels around an optimizer step that decide about it: see kernels/api/optimizer.h.
#include <cmath>
#include <limits>

#include "kernels/api/optimizer.h"
#include "kernels/cpu/register_internal.h"
#include "kernels/cpu/rules_internal.h"

namespace heddle::kernels::cpu {
namespace {

double number(const View& v) {
  return v.dtype == DType::f64 ? *v.as<const double>() : static_cast<double>(*v.as<const float>());
}

template <class T>
T in_rank_order(const View& shares) {
  T sum = 0;
  for (int64_t rank = 0; rank < shares.numel(); ++rank) sum = rank == 0 ? shares.as<const T>()[0] : sum + shares.as<const T>()[rank];
  return sum;
}

double deviation(double variance, double least) {
  return std::max(std::sqrt(variance), least);
}

void average(double& mean, double& variance, double value, double weight) {
  const double delta = value - mean;
  mean += weight * delta;
  variance = (1 - weight) * (variance + weight * delta * delta);
}

// Compares a finite step with those before it.
void look_for_spikes(StepState& s, bool has_loss) {
  SpikeStatistics& known = s.spikes;
  const double loss_noise = deviation(known.loss_variance, kLeastLossNoise * std::abs(known.loss_mean));
  const double norm_noise = deviation(known.norm_variance, kLeastNormNoise);
  // A zero gradient has no logarithm; it is no spike either.
  const double log_norm = s.grad_norm > 0 ? std::log(double{s.grad_norm}) : known.norm_mean;
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
  const double weight = std::max(1 - kSpikeDecay, 4 / (known.observations + 4));
  if (has_loss) average(known.loss_mean, known.loss_variance, s.loss, weight);
  average(known.norm_mean, known.norm_variance, log_norm, weight);
  known.observations += 1;
}

}  // namespace

Refusal refuses(const FinishNormArgs& args) {
  Rules rules;
  rules.present("squared_norm", args.squared_norm)
      .need(args.squared_norm.numel() == 1 && (args.squared_norm.dtype == DType::f64 || args.squared_norm.dtype == DType::f32), "squared_norm ",
            args.squared_norm, " must be one f32 or f64");
  if (args.loss) {
    rules.dense("loss", args.loss)
        .need(args.loss.numel() >= 1 && (args.loss.dtype == DType::f64 || args.loss.dtype == DType::f32), "loss ", args.loss,
              " must be f32 or f64, one for each rank");
  }
  if (args.faults) rules.dtype("faults", args.faults, DType::i32).dense("faults", args.faults);
  return rules.need(args.step != nullptr, "step is absent");
}
void run(const FinishNormArgs& args, Stream) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  StepState& s = *args.step;
  s.loss = !args.loss ? 0.0 : args.loss.dtype == DType::f64 ? in_rank_order<double>(args.loss) : double{in_rank_order<float>(args.loss)};
  s.loss_z = s.norm_z = kNaN;
  s.grad_norm = static_cast<float>(std::sqrt(number(args.squared_norm)));
  const bool clip = std::isfinite(s.grad_norm) && s.clip_norm > 0 && s.grad_norm > s.clip_norm;
  s.clip_scale = clip ? s.clip_norm / s.grad_norm : 1.0f;
  s.max_loss = s.max_grad_norm = 0;
  s.spike = s.fault = 0;
  for (int64_t rank = 0; args.faults && rank < args.faults.numel(); ++rank) s.fault |= args.faults.as<const int32_t>()[rank] != 0 ? 1 : 0;
  s.finite = s.grad_norm * s.clip_scale <= kMostGradNorm && std::isfinite(static_cast<float>(s.loss)) ? 1 : 0;  // false for a NaN
  if (s.fault == 0 && s.finite) {
    s.spikes.nonfinite_run = 0;
    look_for_spikes(s, static_cast<bool>(args.loss));
  } else if (s.fault == 0) {
    s.spikes.nonfinite_run += 1;
  }
  s.apply = s.finite && !s.spike && !s.fault ? 1 : 0;
}

Refusal refuses(const AdvanceStepArgs& args) {
  return Rules().need(args.step != nullptr, "step is absent");
}
void run(const AdvanceStepArgs& args, Stream) {
  StepState& step = *args.step;
  step.adam_t += static_cast<uint64_t>(step.apply);
  step.skipped += static_cast<uint64_t>(1 - step.apply);
  step.step += 1;
  step.rng_stream = step.step;
}

}  // namespace heddle::kernels::cpu
