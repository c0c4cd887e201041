// Watching a run for divergence: steps that stand out, gradients that are no numbers, and what to do about them.
//
// Loss and gradient norm are compared with their exponential moving averages by z-score (as ZClip, arXiv 2504.02507, does for the norm; the norm
// in logarithms, because its noise is multiplicative). Single steps are withheld on the device, before they touch a parameter; a run that stays
// bad goes back to an earlier checkpoint past the offending data (PaLM, arXiv 2204.02311, section 5.1), a bounded number of times.
#pragma once

#include <array>
#include <cstdint>
#include <string>

namespace heddle {

struct SpikeOptions {
  double z = 0;                 // deviations above the mean that make a spike; 0: spikes are not looked for
  double decay = 0.99;          // of the moving averages: about 100 steps of memory
  int64_t warm_up = 100;        // observations before a verdict
  int64_t spike_limit = 5;      // spikes in a row before a roll-back
  int64_t nonfinite_limit = 5;  // steps in a row with a NaN or Inf before one
  int64_t rollbacks = 3;        // budget; after it the run stops
};

// Everything the detector remembers; saved with the checkpoint of the step it belongs to.
struct SpikeState {
  double loss_mean = 0, loss_variance = 0, norm_mean = 0, norm_variance = 0;  // norm: of log(gradient norm)
  double observations = 0;
  double spike_run = 0, nonfinite_run = 0;
  double rollbacks = 0;

  static constexpr int kSize = 8;
  std::array<double, kSize> pack() const;
  static SpikeState unpack(const std::array<double, kSize>& values);
};

enum class SpikeAction : uint8_t {
  go_on,
  withheld,   // this step's update was not applied
  roll_back,  // load an earlier checkpoint and skip the data since
  stop,       // the roll-back budget is used up
};

struct SpikeVerdict {
  SpikeAction action = SpikeAction::go_on;
  double loss_z = 0, norm_z = 0;  // of this step; NaN while there is nothing to compare with
  std::string reason;             // for log and ledger; empty when nothing stands out
};

class SpikeGuard {
 public:
  explicit SpikeGuard(const SpikeOptions& options) : options_(options) {}

  // A finished step: mean loss, global gradient norm before clipping, and whether the device found them fit to apply (StepState::finite: a finite
  // norm may be too large as well). Where the verdict is not go_on the device has withheld the update. Values that stand out do not enter the
  // averages.
  SpikeVerdict observe(double loss, double grad_norm, bool finite = true);

  // For StepState: an update whose gradient norm or loss is above is withheld. 0 (no limit) when off or warming up.
  float max_grad_norm() const;
  float max_loss() const;

  const SpikeState& state() const { return state_; }
  // After loading a checkpoint. The number of roll-backs never falls: going back does not refill the budget.
  void restore(const SpikeState& saved);

 private:
  SpikeVerdict escalate(SpikeVerdict verdict, bool at_limit);
  bool warm() const { return state_.observations >= static_cast<double>(options_.warm_up); }

  SpikeOptions options_;
  SpikeState state_;
};

}  // namespace heddle
