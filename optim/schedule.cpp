#include "optim/schedule.h"

#include <algorithm>
#include <cmath>

namespace heddle {

double Schedule::factor(uint64_t step) const {
  if (step < warmup) return static_cast<double>(step + 1) / static_cast<double>(warmup);
  if (kind == ScheduleKind::constant) return 1;
  const double from = kind == ScheduleKind::wsd ? std::max(static_cast<double>(warmup), static_cast<double>(steps) * (1 - decay_fraction))
                                                : static_cast<double>(warmup);
  const double span = std::max(static_cast<double>(steps) - from, 1.0);
  const double done = std::clamp((static_cast<double>(step) - from) / span, 0.0, 1.0);
  const double left = kind == ScheduleKind::cosine ? 0.5 * (1 + std::cos(3.14159265358979323846 * done)) : 1 - done;
  return final_fraction + (1 - final_fraction) * left;
}

}  // namespace heddle
