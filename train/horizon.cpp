#include "train/horizon.h"

#include <cmath>

#include "kernels/api/check.h"
#include "kernels/api/printable.h"
#include "train/config/values.h"

namespace heddle {
namespace {

constexpr int64_t kMostSteps = int64_t{1} << 40;

double due_seconds(const RunPace::Beside& b, int64_t steps) {
  const int64_t times = b.every > 0 ? (steps + b.every - 1) / b.every : 1;  // the last step's too
  return b.seconds * static_cast<double>(times);
}

}  // namespace

double RunPace::seconds_of(int64_t steps) const {
  return step * static_cast<double>(steps) + due_seconds(eval, steps) + due_seconds(save, steps);
}

int64_t RunPace::steps_within(double seconds) const {
  int64_t fits = 0, beyond = kMostSteps;
  while (beyond - fits > 1) {
    const int64_t middle = fits + (beyond - fits) / 2;
    (seconds_of(middle) <= seconds ? fits : beyond) = middle;
  }
  return fits;
}

int64_t steps_in_minutes(double minutes, double elapsed, const RunPace& pace, int64_t warmup) {
  const int64_t steps = pace.steps_within(kPlannedPart * (60 * minutes - elapsed)), fewest = fewest_steps(warmup);
  if (steps >= fewest) return steps;
  const double needed = (elapsed + pace.seconds_of(fewest) / kPlannedPart) / 60;
  fail_usage("config", concat("--minutes ", minutes, " pays for ", counted(steps, "step"), " of ", pace.step, " s; with --warmup ", warmup,
                              " a run takes at least ", fewest, ": give --minutes ", std::ceil(needed * 110) / 100, ", or smaller steps"));
}

}  // namespace heddle
