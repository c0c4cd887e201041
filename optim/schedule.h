// Learning-rate schedules: the factor on every group's base rate, a pure function of the step.
#pragma once

#include <cstdint>

namespace heddle {

enum class ScheduleKind : uint8_t { constant, cosine, linear, wsd };

struct Schedule {
  ScheduleKind kind = ScheduleKind::cosine;
  uint64_t steps = 1;           // of the whole run
  uint64_t warmup = 0;          // steps of linear rise; step 0 already moves (factor 1 / warmup)
  double final_fraction = 0.1;  // factor at the end
  double decay_fraction = 0.2;  // wsd: the last part of the run that decays, linearly

  // cosine: Loshchilov and Hutter 2017; linear: to final_fraction; wsd: warm-up, stable, decay (Hu et al. 2024, "MiniCPM").
  // Steps at or past the end give final_fraction.
  double factor(uint64_t step) const;
};

}  // namespace heddle
