#include "train/spike.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/api/check.h"

namespace heddle {
namespace {

// Below this share of its size a quantity's noise is not believed: a constant series must not turn the last digit into a spike.
constexpr double kLeastLossNoise = 1e-3;  // relative
constexpr double kLeastNormNoise = 1e-2;  // of the logarithm

double loss_deviation(const SpikeState& s) {
  return std::max(std::sqrt(s.loss_variance), kLeastLossNoise * std::abs(s.loss_mean));
}

double norm_deviation(const SpikeState& s) {
  return std::max(std::sqrt(s.norm_variance), kLeastNormNoise);
}

void average(double& mean, double& variance, double value, double weight) {
  const double delta = value - mean;
  mean += weight * delta;
  variance = (1 - weight) * (variance + weight * delta * delta);
}

}  // namespace

std::array<double, SpikeState::kSize> SpikeState::pack() const {
  return {loss_mean, loss_variance, norm_mean, norm_variance, observations, spike_run, nonfinite_run, rollbacks};
}

SpikeState SpikeState::unpack(const std::array<double, kSize>& v) {
  return {v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7]};
}

SpikeVerdict SpikeGuard::observe(double loss, double grad_norm, bool finite) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
  SpikeVerdict verdict{SpikeAction::go_on, kNaN, kNaN, ""};
  if (!finite || !std::isfinite(loss) || !std::isfinite(grad_norm)) {
    state_.nonfinite_run += 1;
    verdict.action = SpikeAction::withheld;
    verdict.reason = concat(std::isfinite(loss) ? "gradient norm " : "loss ", std::isfinite(loss) ? grad_norm : loss);
    return escalate(verdict, state_.nonfinite_run >= static_cast<double>(options_.nonfinite_limit));
  }
  state_.nonfinite_run = 0;

  // A zero gradient has no logarithm; it is no spike either.
  const double log_norm = grad_norm > 0 ? std::log(grad_norm) : state_.norm_mean;
  if (state_.observations >= 2) {
    verdict.loss_z = (loss - state_.loss_mean) / loss_deviation(state_);
    verdict.norm_z = (log_norm - state_.norm_mean) / norm_deviation(state_);
  }
  // What the device compared, as it compared it: the step counts as a spike when its update was withheld, and only then.
  const bool loss_spike = max_loss() > 0 && static_cast<float>(loss) > max_loss();
  const bool norm_spike = max_grad_norm() > 0 && static_cast<float>(grad_norm) > max_grad_norm();
  if (loss_spike || norm_spike) {
    state_.spike_run += 1;
    verdict.action = SpikeAction::withheld;
    verdict.reason = loss_spike && !(norm_spike && verdict.norm_z > verdict.loss_z)
                         ? concat("loss ", loss, " is ", verdict.loss_z, " deviations above ", state_.loss_mean)
                         : concat("gradient norm ", grad_norm, " is ", verdict.norm_z, " deviations above ", std::exp(state_.norm_mean));
    return escalate(verdict, state_.spike_run >= static_cast<double>(options_.spike_limit));
  }
  state_.spike_run = 0;
  // At first a memory of the last quarter of the run: the steep fall of the first steps must not pass for noise for hundreds more.
  const double weight = std::max(1 - options_.decay, 4 / (state_.observations + 4));
  average(state_.loss_mean, state_.loss_variance, loss, weight);
  average(state_.norm_mean, state_.norm_variance, log_norm, weight);
  state_.observations += 1;
  return verdict;
}

SpikeVerdict SpikeGuard::escalate(SpikeVerdict verdict, bool at_limit) {
  if (!at_limit) return verdict;
  if (state_.rollbacks >= static_cast<double>(options_.rollbacks)) {
    verdict.action = SpikeAction::stop;
    verdict.reason += concat("; ", options_.rollbacks, " roll-backs are used up");
    return verdict;
  }
  state_.rollbacks += 1;
  state_.spike_run = state_.nonfinite_run = 0;
  verdict.action = SpikeAction::roll_back;
  return verdict;
}

float SpikeGuard::max_grad_norm() const {
  return options_.z > 0 && warm() ? static_cast<float>(std::exp(state_.norm_mean + options_.z * norm_deviation(state_))) : 0;
}

float SpikeGuard::max_loss() const {
  return options_.z > 0 && warm() ? static_cast<float>(state_.loss_mean + options_.z * loss_deviation(state_)) : 0;
}

void SpikeGuard::restore(const SpikeState& saved) {
  const double used = std::max(state_.rollbacks, saved.rollbacks);
  state_ = saved;
  state_.rollbacks = used;
}

}  // namespace heddle
