#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <ctime>
#include <limits>
#include <random>

#include "tests/support/catch.h"
#include "tests/train/expect_error.h"
#include "train/signals.h"
#include "train/spike.h"

namespace heddle {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

// A run as they look: loss falls along a power law with noise, the gradient norm is log-normal around a slow drift.
struct SyntheticRun {
  explicit SyntheticRun(uint64_t seed) : engine(seed) {}
  std::mt19937_64 engine;
  std::normal_distribution<double> normal;
  double loss(int step) { return 2.5 + 8 * std::pow(1 + step, -0.35) + 0.03 * normal(engine); }
  double norm(int step) { return 0.8 * std::exp(0.15 * std::sin(step * 1e-3) + 0.12 * normal(engine)); }
};

TEST_CASE("twenty of twenty spikes are caught") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SyntheticRun run(seed);
    SpikeGuard guard({.z = 6});
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
    SpikeGuard guard({.z = 6});
    for (int step = 0; step < 10000; ++step) alarms += guard.observe(run.loss(step), run.norm(step)).action != SpikeAction::go_on;
  }
  CHECK(alarms <= 10);
}

TEST_CASE("the device's limit on the gradient norm agrees with the verdict") {
  SyntheticRun run(3);
  SpikeGuard guard({.z = 6});
  CHECK(guard.max_grad_norm() == 0);
  for (int step = 0; step < 400; ++step) guard.observe(run.loss(step), run.norm(step));
  const double limit = guard.max_grad_norm();
  CHECK(limit > 0.8);
  CHECK(limit < 4);
  const SpikeState state = guard.state();
  CHECK(guard.observe(run.loss(400), limit * 0.999).action == SpikeAction::go_on);
  guard.restore(state);
  CHECK(guard.observe(run.loss(400), limit * 1.001).action == SpikeAction::withheld);
  SpikeGuard off({.z = 0});
  for (int step = 0; step < 400; ++step) off.observe(run.loss(step), run.norm(step));
  CHECK(off.max_grad_norm() == 0);
  CHECK(off.observe(100, 1e30).action == SpikeAction::go_on);
}

TEST_CASE("what stands out does not move the averages") {
  SyntheticRun run(4);
  SpikeGuard guard({.z = 6, .spike_limit = 1000});
  for (int step = 0; step < 300; ++step) guard.observe(run.loss(step), run.norm(step));
  const SpikeState before = guard.state();
  for (const double bad : {kNaN, kInf, -kInf, 1e30}) {
    guard.observe(bad, 1);
    guard.observe(3, bad);
  }
  CHECK(guard.state().loss_mean == before.loss_mean);
  CHECK(guard.state().norm_variance == before.norm_variance);
  SpikeGuard constant({.z = 6});
  for (int step = 0; step < 500; ++step) CHECK(constant.observe(2.0 + (step % 2) * 1e-9, 0.0).action == SpikeAction::go_on);
}

TEST_CASE("a run that stays bad rolls back until the budget is used up") {
  SpikeGuard guard({.z = 0, .nonfinite_limit = 5, .rollbacks = 2});
  const auto series = [&] {
    for (int i = 0; i < 4; ++i) CHECK(guard.observe(kNaN, 1).action == SpikeAction::withheld);
    return guard.observe(1, kInf).action;
  };
  const SpikeState start = guard.state();
  for (int i = 0; i < 4; ++i) guard.observe(kNaN, 1);
  CHECK(guard.observe(2, 1).action == SpikeAction::go_on);  // a finite step ends the series
  CHECK(series() == SpikeAction::roll_back);
  guard.restore(start);  // the checkpoint knows of no roll-back
  CHECK(guard.state().rollbacks == 1);
  CHECK(series() == SpikeAction::roll_back);
  guard.restore(start);
  CHECK(series() == SpikeAction::stop);

  SyntheticRun run(5);
  SpikeGuard spikes({.z = 6, .spike_limit = 3});
  for (int step = 0; step < 300; ++step) spikes.observe(run.loss(step), run.norm(step));
  CHECK(spikes.observe(9, 1).action == SpikeAction::withheld);
  CHECK(spikes.observe(9, 1).action == SpikeAction::withheld);
  CHECK(spikes.observe(9, 1).action == SpikeAction::roll_back);
}

TEST_CASE("a saved detector goes on as if it had not stopped") {
  SyntheticRun a(6), b(6);
  SpikeGuard straight({.z = 6}), first({.z = 6}), second({.z = 6});
  for (int step = 0; step < 200; ++step) {
    straight.observe(a.loss(step), a.norm(step));
    first.observe(b.loss(step), b.norm(step));
  }
  second.restore(SpikeState::unpack(first.state().pack()));
  for (int step = 200; step < 400; ++step) {
    const SpikeVerdict x = straight.observe(a.loss(step), a.norm(step)), y = second.observe(b.loss(step), b.norm(step));
    CHECK(x.loss_z == y.loss_z);
    CHECK(x.norm_z == y.norm_z);
  }
  CHECK(straight.state().pack() == second.state().pack());
}

void wait_milliseconds(long n) {
  timespec t{n / 1000, n % 1000 * 1000000};
  nanosleep(&t, nullptr);
}

TEST_CASE("signals and the time limit ask to stop") {
  struct sigaction before {
  }, after{};
  ::sigaction(SIGTERM, nullptr, &before);
  {
    const StopSignals stop;
    CHECK(!stop.poll());
    CHECK(std::isinf(stop.remaining()));
    ::raise(SIGTERM);
    CHECK(stop.poll().reason == StopReason::terminate);
    expect_error([] { StopSignals second; }, ExitCode::runtime, {"two StopSignals"});
  }
  {
    const StopSignals stop;
    CHECK(!stop.poll());  // nothing is left over
    ::raise(SIGUSR1);
    ::raise(SIGUSR1);  // Slurm and mpirun both deliver it
    CHECK(stop.poll().reason == StopReason::user1);
  }
  {
    const StopSignals stop(0.05);
    CHECK(!stop.poll());
    CHECK(stop.remaining() <= 0.05);
    wait_milliseconds(60);
    CHECK(stop.poll().reason == StopReason::time_limit);
    ::raise(SIGINT);
    CHECK(stop.poll().reason == StopReason::interrupt);
  }
  ::sigaction(SIGTERM, nullptr, &after);
  CHECK(after.sa_handler == before.sa_handler);  // given back
  CHECK(name_of(StopReason::time_limit) == "--time-limit");
}

// In a child process: signals sent one after another; returns how it ended.
int child_status(const std::vector<int>& signals, long pause) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (const int signal : {SIGHUP, SIGINT}) ::signal(signal, SIG_DFL);  // this test may run under nohup
    const StopSignals stop;
    ::close(STDERR_FILENO);
    for (const int signal : signals) {
      ::raise(signal);
      wait_milliseconds(pause);
    }
    ::_exit(stop.poll() ? 75 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_CASE("a second signal ends the process at once with 128 + n") {
  CHECK(WEXITSTATUS(child_status({SIGTERM}, 0)) == 75);
  CHECK(WEXITSTATUS(child_status({SIGTERM, SIGTERM}, 0)) == 128 + SIGTERM);
  CHECK(WEXITSTATUS(child_status({SIGINT, SIGINT}, 0)) == 128 + SIGINT);
  CHECK(WEXITSTATUS(child_status({SIGUSR1, SIGTERM}, 0)) == 128 + SIGTERM);
  CHECK(WEXITSTATUS(child_status({SIGTERM, SIGUSR1}, 0)) == 128 + SIGUSR1);
  CHECK(WEXITSTATUS(child_status({SIGUSR1, SIGUSR1}, 0)) == 75);
  CHECK(WEXITSTATUS(child_status({SIGUSR1, SIGUSR1}, 1050)) == 128 + SIGUSR1);
  CHECK(WEXITSTATUS(child_status({SIGPIPE}, 0)) == 0);
  // A session that ends sends SIGHUP from several sides, next to SIGTERM: nobody is impatient.
  CHECK(WEXITSTATUS(child_status({SIGHUP, SIGHUP}, 0)) == 75);
  CHECK(WEXITSTATUS(child_status({SIGHUP, SIGTERM, SIGHUP}, 0)) == 75);
  CHECK(WEXITSTATUS(child_status({SIGTERM, SIGHUP}, 0)) == 75);
  CHECK(WEXITSTATUS(child_status({SIGHUP, SIGTERM, SIGTERM}, 0)) == 128 + SIGTERM);
}

}  // namespace
}  // namespace heddle
