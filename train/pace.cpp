// --minutes: how long steps of this run take on this machine, measured on the run's own parts, which are then made anew.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>

#include "checkpoint/plan.h"
#include "core/device.h"
#include "kernels/api/printable.h"
#include "parallel/pulse.h"
#include "train/horizon.h"
#include "train/run.h"

namespace heddle {
namespace {

constexpr int kWarmSteps = 3;  // caches; a GPU records the second one
constexpr double kFewestSteps = 3, kMostSteps = 30, kMeasuredPart = 0.02;
constexpr uint64_t kEvalRounds = 4;
// Not measured: there is no run directory yet. A save is copied while training waits and written behind its back; the last one is waited for.
constexpr double kCopyBytesPerSecond = 1e9, kWriteBytesPerSecond = 1e8;

// What rank 0 has, on all ranks.
template <size_t N>
std::array<double, N> of_first(Control& control, std::array<double, N> mine) {
  const std::string text = control.gather_text({reinterpret_cast<const char*>(mine.data()), sizeof mine}).front();
  std::memcpy(mine.data(), text.data(), sizeof mine);
  return mine;
}

}  // namespace

void Run::set_horizon_by_clock(const std::function<double()>& elapsed) {
  std::optional<Error> unreadable;  // what this rank found of its data
  const auto any_unreadable = [&] { return control().vote_max(unreadable ? 1 : 0) == 1; };
  const auto must_be_readable = [&] {
    agree(control(), [&] {
      if (unreadable) throw *unreadable;
      return std::string();
    });
  };
  const StepPlan plan{.micro_steps = micro_steps,
                      .valid_targets = loader->valid_targets(0, static_cast<uint64_t>(samples)),
                      .lr = 1,
                      .clip_norm = static_cast<float>(config.grad_clip),
                      .spike_z = config.spike_z,
                      .z_loss = static_cast<float>(config.z_loss)};
  const uint64_t mine = static_cast<uint64_t>(control().rank()) * rank_samples();
  const auto fill = [&](int64_t m, const BatchView& into) {
    try {
      loader->fill(mine + static_cast<uint64_t>(m * config.batch), into);
    } catch (const Error& e) {
      unreadable = e;
    }
  };
  const auto steps_take = [&](int steps) {
    const double begun = elapsed();
    for (int i = 0; i < steps; ++i) {
      mark_progress();
      if (!trainer->step(plan, fill, any_unreadable)) must_be_readable();
    }
    trainer->join_values();
    synchronize(device);
    return elapsed() - begun;
  };
  steps_take(kWarmSteps);
  const double one = steps_take(1), worth = kMeasuredPart * 60 * config.minutes / std::max(one, 1e-9);
  const auto [measured] = of_first<1>(control(), {std::clamp(std::floor(worth), kFewestSteps, kMostSteps)});
  RunPace pace;
  pace.step = steps_take(static_cast<int>(measured)) / measured;

  if (evaluator) {
    const uint64_t per_round = static_cast<uint64_t>(evaluator->batch()) * static_cast<uint64_t>(control().size());
    const uint64_t rounds = (evaluator->rows() + per_round - 1) / per_round;
    uint64_t read = 0;
    const auto stop = [&] {
      mark_progress();
      return any_unreadable() || read++ == kEvalRounds;
    };
    const double begun = elapsed();
    evaluator->run([this](const Tensor& tokens, const Tensor& targets, const Tensor& start) { return learner->token_losses(tokens, targets, start); },
                   stop, [&](const Error& e) { unreadable = e; });
    must_be_readable();
    pace.eval = {config.eval_every, (elapsed() - begun) * static_cast<double>(rounds) / static_cast<double>(std::min(rounds, kEvalRounds))};
  }
  double bytes = 0;
  for (const StateDict::Entry& e : state.tensors) bytes += static_cast<double>(e.data.bytes());
  pace.save = {config.save_every, bytes / kCopyBytesPerSecond};

  // One rank's clock decides for all.
  const auto [gone, step_seconds, eval_seconds, save_seconds] =
      of_first<4>(control(), {elapsed() + bytes / kWriteBytesPerSecond, pace.step, pace.eval.seconds, pace.save.seconds});
  pace.step = step_seconds, pace.eval.seconds = eval_seconds, pace.save.seconds = save_seconds;
  config.steps = steps_in_minutes(config.minutes, gone, pace, config.warmup);
  config.mark_derived("steps", concat("minutes ", config.minutes, ", steps of ", pace.step, " s"));
  console.line(concat("--minutes ", config.minutes, ": ", counted(config.steps, "step"), " of ", pace.step, " s, measured over ", measured,
                      evaluator ? concat("; a validation is ", pace.eval.seconds, " s") : "", "; --steps ", config.steps, " is the same run"));

  // The run begins with parts that have not trained.
  trainer.reset(), optimizer.reset(), arena.reset(), learner.reset();
  state = {};
  build();
}

}  // namespace heddle
