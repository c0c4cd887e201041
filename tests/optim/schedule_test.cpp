#include "optim/schedule.h"

#include <cmath>

#include "tests/support/catch.h"

namespace heddle {
namespace {

constexpr double kUlps = 8 * 0x1p-53;

void check(const Schedule& s, uint64_t step, double want) {
  CAPTURE(static_cast<int>(s.kind), step);
  CHECK(std::abs(s.factor(step) - want) <= kUlps);
}

TEST_CASE("warm-up rises linearly, moves in step 0 and meets the peak") {
  for (ScheduleKind kind : {ScheduleKind::constant, ScheduleKind::cosine, ScheduleKind::linear, ScheduleKind::wsd}) {
    const Schedule s{.kind = kind, .steps = 100, .warmup = 10};
    check(s, 0, 0.1);
    check(s, 4, 0.5);
    check(s, 9, 1);
    check(s, 10, 1);
    const Schedule none{.kind = kind, .steps = 100, .warmup = 0};
    check(none, 0, 1);
  }
}

TEST_CASE("cosine, linear and wsd between peak and end") {
  const Schedule cosine{.kind = ScheduleKind::cosine, .steps = 110, .warmup = 10, .final_fraction = 0.2};
  check(cosine, 35, 0.2 + 0.8 * (0.5 + std::sqrt(0.125)));
  check(cosine, 60, 0.6);
  check(cosine, 85, 0.2 + 0.8 * (0.5 - std::sqrt(0.125)));
  check(cosine, 110, 0.2);

  const Schedule linear{.kind = ScheduleKind::linear, .steps = 110, .warmup = 10, .final_fraction = 0};
  check(linear, 35, 0.75);
  check(linear, 109, 0.01);
  check(linear, 110, 0);

  const Schedule wsd{.kind = ScheduleKind::wsd, .steps = 100, .warmup = 10, .final_fraction = 0.1, .decay_fraction = 0.25};
  check(wsd, 50, 1);
  check(wsd, 75, 1);  // the last quarter decays
  check(wsd, 80, 1 - 0.9 * 0.2);
  check(wsd, 100, 0.1);

  const Schedule constant{.kind = ScheduleKind::constant, .steps = 100};
  check(constant, 99, 1);
}

TEST_CASE("the end and everything past it give the final fraction, and no step gives anything outside [0, 1]") {
  for (ScheduleKind kind : {ScheduleKind::cosine, ScheduleKind::linear, ScheduleKind::wsd}) {
    for (uint64_t warmup : {uint64_t{0}, uint64_t{7}, uint64_t{20}, uint64_t{50}}) {  // also one that ends after the run
      const Schedule s{.kind = kind, .steps = 20, .warmup = warmup, .final_fraction = 0.05};
      double before = 2;
      for (uint64_t step = 0; step < 80; ++step) {
        const double factor = s.factor(step);
        CAPTURE(static_cast<int>(kind), warmup, step);
        CHECK(factor > 0);
        CHECK(factor <= 1);
        if (step >= warmup) CHECK(factor <= before);  // it never rises again
        before = factor;
      }
      check(s, std::max<uint64_t>(20, warmup + 1), 0.05);
      check(s, UINT64_MAX, 0.05);
    }
  }
}

TEST_CASE("wsd: a decay longer than the run begins after the warm-up; none drops at the end") {
  const Schedule whole{.kind = ScheduleKind::wsd, .steps = 20, .warmup = 4, .final_fraction = 0, .decay_fraction = 1};
  check(whole, 4, 1);
  check(whole, 12, 0.5);
  const Schedule none{.kind = ScheduleKind::wsd, .steps = 20, .warmup = 4, .final_fraction = 0, .decay_fraction = 0};
  check(none, 19, 1);
  check(none, 21, 0);
}

}  // namespace
}  // namespace heddle
