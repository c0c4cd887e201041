// Cost in proportion to the input, measured as processor time of this process.
#pragma once

#include <time.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <functional>
#include <string>

#include "tests/support/catch.h"

namespace heddle::test {

// Processor time of all threads of this process that `work` takes: the best of a few runs, so `work` must do the same each time.
inline double cpu_seconds(const std::function<void()>& work) {
  const auto now = [] {
    timespec t{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
  };
  double best = 1e300;
  for (int run = 0; run < 5; ++run) {
    const double begin = now();
    work();
    best = std::min(best, now() - begin);
  }
  return best;
}

// `make(n)` prepares an input of size n, outside the clock, and returns the work to time, which owns it. CHECKs that four times the input takes
// less than six times the time: linear cost gives 4, n log n a little more, quadratic cost 16. `n` grows until time(n) can be measured.
inline void check_cost(const std::string& name, size_t n, const std::function<std::function<void()>(size_t)>& make) {
  constexpr double kMeasurable = 2e-4;  // seconds; more would leave the caches, and four times as much be slower for that reason
  constexpr int kMostDoublings = 16, kMostLooks = 4;
  std::array<double, 3> seconds{};  // at n, 2n, 4n
  for (int doublings = 0; (seconds[0] = cpu_seconds(make(n))) < kMeasurable; n *= 2) {
    if (++doublings > kMostDoublings) FAIL(name << ": too quick to be measured, even for n = " << n);
  }
  seconds[1] = seconds[2] = 1e300;
  // A busy machine can only make it slower: the least of a few looks counts.
  for (int look = 0; look < kMostLooks && !(seconds[2] < 6 * seconds[0]); ++look) {
    for (size_t i = look == 0 ? 1 : 0; i < seconds.size(); ++i) seconds[i] = std::min(seconds[i], cpu_seconds(make(n << i)));
  }
  INFO(name << ": " << 1e3 * seconds[0] << " ms for n = " << n << ", " << 1e3 * seconds[1] << " ms for 2n, " << 1e3 * seconds[2] << " ms for 4n");
  CHECK(seconds[2] / seconds[0] < 6);
}

}  // namespace heddle::test
