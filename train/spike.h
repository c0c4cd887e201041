// Watching a run for divergence: steps that stand out, gradients that are no numbers, and what to do about them.
//
// Single steps are withheld on the device, which keeps the statistics (kernels/api/step_state.h), before they touch a parameter. A run that stays bad
// goes back to an earlier checkpoint past the offending data (PaLM, arXiv:2204.02311, section 5.1), a bounded number of times: that is the host's,
// from the results of the steps.
#pragma once

#include <array>
#include <cstdint>
#include <string>

#include "kernels/api/step_state.h"

namespace heddle {

struct SpikeOptions {
  int64_t spike_limit = 5;      // spikes in a row before a roll-back
  int64_t nonfinite_limit = 5;  // steps in a row with a NaN or Inf before one
  int64_t rollbacks = 3;        // budget; after it the run stops
};

enum class SpikeAction : uint8_t {
  go_on,
  withheld,   // this step's update was not applied
  roll_back,  // load an earlier checkpoint and skip the data since
  stop,       // the roll-back budget is used up
};

struct SpikeVerdict {
  SpikeAction action = SpikeAction::go_on;
  std::string reason;  // for log and ledger; empty when nothing stands out
};

class SpikeGuard {
 public:
  explicit SpikeGuard(const SpikeOptions& options = {}) : options_(options) {}

  // What a step came to, as the device left it. Uses up budget.
  SpikeVerdict judge(const StepState& result);

  int64_t rollbacks() const { return rollbacks_; }
  // After loading a checkpoint. The number never falls: going back does not refill the budget.
  void used(int64_t rollbacks);

 private:
  SpikeOptions options_;
  int64_t rollbacks_ = 0;
};

// As a checkpoint keeps them.
inline constexpr size_t kPackedSpikes = 8;
std::array<double, kPackedSpikes> pack(const SpikeStatistics& statistics, int64_t rollbacks);
SpikeStatistics unpack(const std::array<double, kPackedSpikes>& packed, int64_t& rollbacks);

}  // namespace heddle
