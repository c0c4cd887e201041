// The detector of spikes: the device's statistics and the host's verdicts together, on made-up series.
#include <cmath>
#include <limits>
#include <random>

#include "kernels/api/optimizer.h"
#include "tests/kernels/kernel_case.h"
#include "train/spike.h"

namespace heddle {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInf = std::numeric_limits<double>::infinity();

// A run as they look: loss falls along a power law with noise, the gradient norm is log-normal around a slow drift.
struct SyntheticRun {
  explicit SyntheticRun(uint64_t seed) : engine(seed) {}
  std::mt19937_64 engine;
  std::normal_distribution<double> normal;
  double loss(int step) { return 2.5 + 8 * std::pow(1 + step, -0.35) + 0.03 * normal(engine); }
  double norm(int step) { return 0.8 * std::exp(0.15 * std::sin(step * 1e-3) + 0.12 * normal(engine)); }
};

// What a training loop does with a step's loss and norm.
struct Watch {
  double z = 0;
  SpikeGuard guard{};
  StepState state{};

  SpikeVerdict observe(double loss, double norm) {
    test::Buffer squared(DType::f64, {1}), losses(DType::f64, {1});
    squared.put(0, norm * norm), losses.put(0, loss);
    state.spike_z = z;
    test::run(kernels::finish_norm, kernels::FinishNormArgs{.squared_norm = squared.view(), .step = &state, .loss = losses.view()});
    return guard.judge(state);
  }
};

TEST_CASE("twenty of twenty spikes are caught") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SyntheticRun run(seed);
    Watch guard{6};
    int caught = 0, false_alarms = 0;
    for (int step = 0; step < 10500; ++step) {
      const bool spike = step >= 500 && step % 500 == 250;
      double loss = run.loss(step), norm = run.norm(step);
      if (spike) (step / 500 % 2 ? loss : norm) *= step / 500 % 2 ? 1.15 : 4;  // 0.4 nats up, or a norm four times as large
      const SpikeVerdict verdict = guard.observe(loss, norm);
      const bool alarm = verdict.action != SpikeAction::go_on;
      if (alarm) CHECK(!verdict.reason.empty());
      caught += alarm && spike;
      false_alarms += alarm && !spike;
    }
    CHECK(caught == 20);
    CHECK(false_alarms <= 1);
  }
}

TEST_CASE("at most one false alarm in ten thousand steps") {
  int alarms = 0;
  for (uint64_t seed = 100; seed < 110; ++seed) {
    SyntheticRun run(seed);
    Watch guard{6};
    for (int step = 0; step < 10000; ++step) alarms += guard.observe(run.loss(step), run.norm(step)).action != SpikeAction::go_on;
  }
  CHECK(alarms <= 10);
}

TEST_CASE("the device's limit on the gradient norm agrees with the verdict") {
  SyntheticRun run(3);
  Watch guard{6};
  for (int step = 0; step < 400; ++step) guard.observe(run.loss(step), run.norm(step));
  Watch probe = guard;
  probe.observe(run.loss(400), 1);
  const double limit = probe.state.max_grad_norm;
  CHECK(limit > 0.8);
  CHECK(limit < 4);
  const StepState state = guard.state;
  CHECK(guard.observe(run.loss(400), limit * 0.999).action == SpikeAction::go_on);
  guard.state = state;
  CHECK(guard.observe(run.loss(400), limit * 1.001).action == SpikeAction::withheld);
  Watch off{0};
  for (int step = 0; step < 400; ++step) off.observe(run.loss(step), run.norm(step));
  CHECK(off.observe(100, 1e15).action == SpikeAction::go_on);
}

TEST_CASE("what stands out does not move the averages") {
  SyntheticRun run(4);
  Watch guard{6, SpikeGuard({.spike_limit = 1000})};
  for (int step = 0; step < 300; ++step) guard.observe(run.loss(step), run.norm(step));
  const SpikeStatistics before = guard.state.spikes;
  for (const double bad : {kNaN, kInf, -kInf, 1e30}) {
    guard.observe(bad, 1);
    guard.observe(3, bad);
  }
  CHECK(guard.state.spikes.loss_mean == before.loss_mean);
  CHECK(guard.state.spikes.norm_variance == before.norm_variance);
  Watch constant{6};
  for (int step = 0; step < 500; ++step) CHECK(constant.observe(2.0 + (step % 2) * 1e-9, 0.0).action == SpikeAction::go_on);
}

TEST_CASE("noise below a thousandth of the loss, or a hundredth of the norm, is not believed") {
  const auto after_a_constant_series = [](double loss, double norm) {
    Watch guard{6};
    for (int step = 0; step < 200; ++step) guard.observe(2, 1);
    return guard.observe(loss, norm).action;
  };
  CHECK(after_a_constant_series(2 * 1.005, 1) == SpikeAction::go_on);
  CHECK(after_a_constant_series(2 * 1.007, 1) == SpikeAction::withheld);
  CHECK(after_a_constant_series(2, std::exp(0.05)) == SpikeAction::go_on);
  CHECK(after_a_constant_series(2, std::exp(0.07)) == SpikeAction::withheld);
}

TEST_CASE("a run that stays bad rolls back until the budget is used up") {
  Watch guard{0, SpikeGuard({.nonfinite_limit = 5, .rollbacks = 2})};
  const auto series = [&] {
    for (int i = 0; i < 4; ++i) CHECK(guard.observe(kNaN, 1).action == SpikeAction::withheld);
    return guard.observe(1, kInf).action;
  };
  const StepState start = guard.state;
  for (int i = 0; i < 4; ++i) guard.observe(kNaN, 1);
  CHECK(guard.observe(2, 1).action == SpikeAction::go_on);  // a finite step ends the series
  CHECK(series() == SpikeAction::roll_back);
  guard.state = start;  // the checkpoint knows of no roll-back
  CHECK(guard.guard.rollbacks() == 1);
  CHECK(series() == SpikeAction::roll_back);
  guard.state = start;
  CHECK(series() == SpikeAction::stop);

  SyntheticRun run(5);
  Watch spikes{6, SpikeGuard({.spike_limit = 3})};
  for (int step = 0; step < 300; ++step) spikes.observe(run.loss(step), run.norm(step));
  CHECK(spikes.observe(9, 1).action == SpikeAction::withheld);
  CHECK(spikes.observe(9, 1).action == SpikeAction::withheld);
  CHECK(spikes.observe(9, 1).action == SpikeAction::roll_back);
}

TEST_CASE("a saved detector goes on as if it had not stopped") {
  SyntheticRun a(6), b(6);
  Watch straight{6}, first{6}, second{6};
  for (int step = 0; step < 200; ++step) {
    straight.observe(a.loss(step), a.norm(step));
    first.observe(b.loss(step), b.norm(step));
  }
  int64_t rollbacks = -1;
  second.state.spikes = unpack(pack(first.state.spikes, 3), rollbacks);
  CHECK(rollbacks == 3);
  for (int step = 200; step < 400; ++step) {
    straight.observe(a.loss(step), a.norm(step)), second.observe(b.loss(step), b.norm(step));
    CHECK(straight.state.loss_z == second.state.loss_z);
    CHECK(straight.state.norm_z == second.state.norm_z);
  }
  CHECK(pack(straight.state.spikes, 0) == pack(second.state.spikes, 0));
}

}  // namespace
}  // namespace heddle
