// Statistics that hold a step's loss and gradient norm against chosen limits.
#pragma once

#include <cmath>
#include <limits>

#include "kernels/api/step_state.h"

namespace heddle::test {

// With this as spike_z what is above the mean at all is withheld.
inline constexpr double kHairTrigger = 1e-300;

// Means at these limits; <= 0: none.
inline SpikeStatistics held_at(double max_grad_norm, double max_loss = 0) {
  constexpr double kNone = std::numeric_limits<double>::infinity();
  return {
      .loss_mean = max_loss > 0 ? max_loss : kNone, .norm_mean = max_grad_norm > 0 ? std::log(max_grad_norm) : kNone, .observations = kSpikeWarmUp};
}

}  // namespace heddle::test
