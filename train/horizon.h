// --minutes: how many steps a time on the clock pays for.
#pragma once

#include <cstdint>

namespace heddle {

// Seconds, as measured at the start of a run.
struct RunPace {
  double step = 0;  // one optimizer step
  // What is due every so many steps (0: never) and after the last one.
  struct Beside {
    int64_t every = 0;
    double seconds = 0;
  };
  Beside eval, save;

  // What so many steps take with all that is due beside them.
  double seconds_of(int64_t steps) const;
  // The most steps that take no longer than this.
  int64_t steps_within(double seconds) const;
};

// Of the time that is left when the pace is known, the part that is planned with. Steps are not all alike.
constexpr double kPlannedPart = 0.95;
// The fewest steps of a horizon that the clock sets: warm-up, and some that decay.
constexpr int64_t fewest_steps(int64_t warmup) {
  return warmup + 10;
}

// The steps of a run of so many minutes, of which `elapsed` seconds are gone. Error(usage), which says what would do, when they are fewer than
// fewest_steps().
int64_t steps_in_minutes(double minutes, double elapsed, const RunPace& pace, int64_t warmup);

}  // namespace heddle
