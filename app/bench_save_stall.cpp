// What a save costs the training that goes on beside it.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "app/bench.h"
#include "checkpoint/checkpoints.h"
#include "core/state.h"
#include "kernels/api/check.h"
#include "parallel/watchdog.h"
#include "train/step_timer.h"

namespace heddle::app {
namespace {

namespace fs = std::filesystem;

// The run directory of the bench: below `where`, gone at the end. Rank 0 makes it, all ranks use it.
struct ScratchRun {
  fs::path path;
  Control& control;
  ScratchRun(const std::string& where, Control& of) : control(of) {
    std::string pattern;
    if (control.rank() == 0) {
      pattern = fs::absolute(fs::path(where.empty() ? "." : where) / "heddle-save-stall-XXXXXX").string();
      if (::mkdtemp(pattern.data()) == nullptr) fail("bench", concat("cannot make a directory in ", where.empty() ? "." : where), ExitCode::io);
    }
    path = control.gather_text(pattern).front();
  }
  ~ScratchRun() {
    std::error_code ignored;
    if (control.rank() == 0) fs::remove_all(path, ignored);
  }
};

}  // namespace

std::string bench_save_stall(BenchOptions options) {
  constexpr double kInterval = 200;  // seconds between saves: about the optimum for a stall of 2 s and a failure every 3 hours
  constexpr int kPlainSteps = 6;     // measured before each save
  StepTimer session(options.config, options.shape, "bench");
  const std::unique_ptr<Control> control = world_control();
  const Watchdog watchdog(*control);
  const ScratchRun run(options.save_dir, *control);
  Checkpoints checkpoints(run.path, *control);
  checkpoints.find_newest();
  StateDict state;
  session.optimizer->add_state(state);
  state.scalars = "{}";
  checkpoints.prepare(state);
  for (int64_t i = 0; i < options.warmup; ++i) session.step();

  struct Save {
    double call = 0, steps = 0, write = 0;  // seconds: in save(), in the steps until the commit, from the copy to the commit
    int64_t count = 0;                      // of those steps
  };
  std::vector<Save> saves;
  std::vector<double> plain;
  uint64_t step = 0;
  for (int64_t i = 0; i < options.repeats; ++i) {
    for (int k = 0; k < kPlainSteps; ++k, ++step) plain.push_back(session.step());
    Save save;
    const auto begin = std::chrono::steady_clock::now();
    checkpoints.save(step, state, "");
    save.call = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    const auto finished = [&] { return checkpoints.stats().committed + checkpoints.stats().failed > static_cast<uint64_t>(i); };
    do {
      save.steps += session.step();
      ++save.count, ++step;
    } while (!finished());
    save.write = checkpoints.stats().write_seconds;
    saves.push_back(save);
  }
  checkpoints.wait();
  if (checkpoints.stats().failed > 0) fail("bench", checkpoints.last_error().value_or("a save failed"), ExitCode::io);
  const double plain_step = median(plain);
  std::vector<double> call, stall, write, slower;
  for (const Save& s : saves) {
    const double excess = s.steps - plain_step * static_cast<double>(s.count);
    call.push_back(s.call);
    write.push_back(s.write);
    slower.push_back(excess);
    stall.push_back(s.call + std::max(0.0, excess));
  }
  char line[1024];
  std::snprintf(
      line, sizeof line,
      "{\"bench\": \"save-stall\", \"ranks\": %d, \"parameters\": %lld, \"bytes\": %llu, \"saves\": %zu, \"step_ms\": %.2f, \"copy_ms\": %.2f, "
      "\"slower_steps_ms\": %.2f, \"stall_ms\": %.2f, \"stall_ms_max\": %.2f, \"write_ms\": %.1f, \"blocked\": %llu, "
      "\"stall_of_200_s\": %.5f}",
      control->size(), static_cast<long long>(session.model.parameter_count()), static_cast<unsigned long long>(checkpoints.stats().bytes),
      saves.size(), plain_step * 1e3, median(call) * 1e3, median(slower) * 1e3, median(stall) * 1e3,
      *std::max_element(stall.begin(), stall.end()) * 1e3, median(write) * 1e3, static_cast<unsigned long long>(checkpoints.stats().blocked),
      median(stall) / kInterval);
  return line;
}

}  // namespace heddle::app
