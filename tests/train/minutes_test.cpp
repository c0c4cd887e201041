// --minutes: a horizon that the clock sets, once. The clock is the test's own.
#include <filesystem>

#include "core/device.h"
#include "tests/support/devices.h"
#include "tests/support/host_kernels.h"
#include "tests/train/expect_error.h"
#include "tests/train/pretrain_support.h"

namespace heddle {
namespace {

using test::Flags;
using test::outcome;
using test::run_by;
using test::run_config;
using test::Scratch;

constexpr double kTick = 0.05;
constexpr int kMeasured = 3 + 1 + 3;  // steps of the measurement, which train nothing that stays

Flags by_the_clock(Flags more = {}) {
  more.insert(
      {{"steps", ""}, {"minutes", "0.02"}, {"val", test::data_set().val()}, {"eval-tokens", "640"}, {"eval-every", "10"}, {"save-every", "7"}});
  return more;
}

TEST_CASE("a horizon by the clock is that many steps, from the first bit on, and a run that goes on keeps it") {
  const Flags way = GENERATE(Flags{}, Flags{{"optimizer", "muon"}, {"schedule", "linear"}, {"warmup", "0"}}, Flags{{"spike-z", "4"}});
  const Scratch whole, counted, cut;
  REQUIRE(run_by(kTick, run_config(whole.path(), by_the_clock(way))) == 0);
  const auto trained = outcome(whole.path());
  CHECK(trained.steps.size() >= 13);
  CHECK(trained.steps.size() <= 60);

  Flags steps = by_the_clock(way);
  steps.erase("minutes");
  steps["steps"] = std::to_string(trained.steps.size());
  REQUIRE(test::run(counted.path(), steps) == 0);
  CHECK(outcome(counted.path()) == trained);
  for (const char* name : {"lr", "val_loss"}) CHECK(test::metric(counted.path(), name) == test::metric(whole.path(), name));

  {
    const test::StopAfterStep stop(kMeasured + 5);
    REQUIRE(run_by(kTick, run_config(cut.path(), by_the_clock(way))) == static_cast<int>(ExitCode::requeue));
  }
  CHECK(test::metric(cut.path(), "step") == test::numbers(1, 5));
  expect_error([&] { run_by(kTick, run_config(cut.path(), by_the_clock({{"minutes", "3"}}))); }, ExitCode::mismatch, {"minutes: saved 0.02"});
  // A machine that has become much slower, and the same words; then none.
  {
    const test::StopAfterStep stop(3);
    REQUIRE(run_by(1000, run_config(cut.path(), by_the_clock(way))) == static_cast<int>(ExitCode::requeue));
  }
  REQUIRE(run_by(1e-6, make_run_config("", {}, std::vector<FlagValue>{{"out", cut.path()}})) == 0);
  CHECK(outcome(cut.path()) == trained);
  CHECK(test::metric(cut.path(), "lr") == test::metric(whole.path(), "lr"));
}

TEST_CASE("on a GPU too nothing of the measured steps and validations stays, recorded or not", "[device]") {
  const kernels::ForcedKernels forced(test::host_kernels());
  for (const Device device : test::devices()) {
    if (device.type == DeviceType::cpu || !runtime(device.type).simulated()) continue;
    const Scratch clock, counted;
    Flags flags = by_the_clock({{"device", "cuda"}});
    REQUIRE(run_by(kTick, run_config(clock.path(), flags)) == 0);
    flags.erase("minutes");
    flags["steps"] = std::to_string(outcome(clock.path()).steps.size());
    REQUIRE(test::run(counted.path(), flags) == 0);
    CHECK(outcome(counted.path()) == outcome(clock.path()));
    CHECK(test::metric(counted.path(), "val_loss") == test::metric(clock.path(), "val_loss"));
  }
}

TEST_CASE("minutes too few for warm-up and some steps are refused, and nothing is left behind") {
  const Scratch folder;
  const std::string out = folder / "run";
  expect_error(
      [&] {
        run_by(kTick, run_config(out, by_the_clock({{"minutes", "0.001"}})));
      },
      ExitCode::usage, {"--minutes 0.001 pays for 0 steps", "--warmup 3", "at least 13", "give --minutes "});
  CHECK(!std::filesystem::exists(out));
}

}  // namespace
}  // namespace heddle
