#include "train/spike.h"

#include <algorithm>
#include <cmath>

#include "kernels/api/check.h"

namespace heddle {

std::array<double, kPackedSpikes> pack(const SpikeStatistics& s, int64_t rollbacks) {
  return {s.loss_mean, s.loss_variance, s.norm_mean, s.norm_variance, s.observations, s.spike_run, s.nonfinite_run, static_cast<double>(rollbacks)};
}

SpikeStatistics unpack(const std::array<double, kPackedSpikes>& v, int64_t& rollbacks) {
  rollbacks = static_cast<int64_t>(std::clamp(v[7], 0.0, 1e9));  // as large as anybody counts, whatever a file says
  return {v[0], v[1], v[2], v[3], v[4], v[5], v[6]};
}

SpikeVerdict SpikeGuard::judge(const StepState& s) {
  if (s.apply) return {};
  SpikeVerdict verdict{SpikeAction::withheld, ""};
  const double norm = s.grad_norm;
  bool at_limit = false;
  if (!s.finite) {
    verdict.reason = concat(std::isfinite(s.loss) ? "gradient norm " : "loss ", std::isfinite(s.loss) ? norm : s.loss);
    at_limit = s.spikes.nonfinite_run >= static_cast<double>(options_.nonfinite_limit);
  } else {
    const bool by_loss = (s.spike & kLossSpike) && !((s.spike & kNormSpike) && s.norm_z > s.loss_z);
    verdict.reason = by_loss ? concat("loss ", s.loss, " is ", s.loss_z, " deviations above ", s.spikes.loss_mean)
                             : concat("gradient norm ", norm, " is ", s.norm_z, " deviations above ", std::exp(s.spikes.norm_mean));
    at_limit = s.spikes.spike_run >= static_cast<double>(options_.spike_limit);
  }
  if (!at_limit) return verdict;
  if (rollbacks_ >= options_.rollbacks) {
    verdict.action = SpikeAction::stop;
    verdict.reason += concat("; ", options_.rollbacks, " roll-backs are used up");
    return verdict;
  }
  ++rollbacks_;
  verdict.action = SpikeAction::roll_back;
  return verdict;
}

void SpikeGuard::used(int64_t rollbacks) {
  rollbacks_ = std::max(rollbacks_, rollbacks);
}

}  // namespace heddle
