// How many steps a time pays for: the arithmetic alone.
#include "train/horizon.h"

#include "kernels/api/check.h"
#include "tests/support/catch.h"
#include "tests/train/expect_error.h"

namespace heddle {
namespace {

// Step by step, what is due after each.
double walked(const RunPace& pace, int64_t steps) {
  double seconds = 0;
  for (int64_t s = 1; s <= steps; ++s) {
    seconds += pace.step;
    for (const RunPace::Beside& b : {pace.eval, pace.save}) {
      if (s == steps || (b.every > 0 && s % b.every == 0)) seconds += b.seconds;
    }
  }
  return seconds;
}

TEST_CASE("a horizon's time counts steps and what is due beside them, the last step's once") {
  for (const RunPace& pace : {RunPace{0.25, {}, {}}, RunPace{0.25, {7, 2}, {}}, RunPace{0.5, {0, 4}, {5, 0.125}}, RunPace{1, {3, 8}, {6, 16}}}) {
    for (const int64_t steps : {1, 2, 5, 6, 7, 14, 15, 30, 35}) CHECK(pace.seconds_of(steps) == walked(pace, steps));  // exact: all are quarters
    for (const double seconds : {0.0, 0.2, 1.0, 9.75, 31.0, 100.5}) {
      const int64_t steps = pace.steps_within(seconds);
      CAPTURE(seconds, steps);
      CHECK((steps == 0 || walked(pace, steps) <= seconds));
      CHECK(walked(pace, steps + 1) > seconds);
    }
  }
}

TEST_CASE("minutes pay for the steps that fit what is left of them, or say how many would do") {
  const RunPace pace{0.25, {100, 2}, {0, 1}};
  // 95 % of 100 s is 95: 1 for the save, the rest for steps and a validation for each begun hundred.
  CHECK(steps_in_minutes(2, 20, pace, 20) == 344);
  CHECK(pace.seconds_of(344) == 95);
  CHECK(steps_in_minutes(2, 20, pace, 334) == 344);
  expect_error([&] { steps_in_minutes(2, 20, pace, 335); }, ExitCode::usage, {"[config] --minutes 2 ", "344 steps of 0.25 s", "--warmup 335", "345"});
  expect_error([&] { steps_in_minutes(0.1, 20, pace, 0); }, ExitCode::usage, {"pays for 0 steps", "at least 10"});
  // What it asks for is enough.
  const double needed = (20 + pace.seconds_of(10) / kPlannedPart) / 60;
  std::string text;
  try {
    steps_in_minutes(0.1, 20, pace, 0);
  } catch (const Error& e) {
    text = e.what();
  }
  const size_t at = text.find("give --minutes ");
  REQUIRE(at != std::string::npos);
  const double asked = std::stod(text.substr(at + 15));
  CHECK(asked > needed);
  CHECK(steps_in_minutes(asked, 20, pace, 0) >= 10);
}

}  // namespace
}  // namespace heddle
