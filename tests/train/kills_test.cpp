// The real program, killed again and again (SIGKILL) while one run is made: half of the kills are to fall inside a save, and a
// third must. What the run ends with, weights, moments, cursor, counters and log, is bit for bit what a run gives that nobody touched.
//
// HEDDLE_KILLS sets the number of kills, 54 by default: the manual restarts and lost hosts of a 175B-parameter run (OPT-175B logbook); the long form
// takes 466, the interruptions of Llama 3 405B.
#include <cstdio>

#include "tests/train/kills_support.h"

namespace heddle::killed {
namespace {

constexpr int kStepsPerKill = 24;  // a killed job gets none to five saves done: enough that the run is not over before the last kill

TEST_CASE("a run killed at random times, many of them inside a save, ends with the bits of one that nobody touched") {
  const int kills = environment_number("HEDDLE_KILLS", 54), steps = kills * kStepsPerKill;
  ::unsetenv("HEDDLE_KILLS");  // the program refuses HEDDLE_ variables that are no option of its own
  const Scratch folder;
  const Session session(folder, steps);
  const test::Clock::time_point begin = test::Clock::now();
  REQUIRE(session.complete(session.command("whole")) == 0);
  const double whole_seconds = test::seconds_since(begin);
  const test::Clock::time_point again = test::Clock::now();
  REQUIRE(session.complete(session.command("whole")) == 0);  // has nothing to do: the time a start takes
  const double start_seconds = test::seconds_since(again), save_interval = (whole_seconds - start_seconds) * kSaveEvery / steps;

  std::mt19937_64 random(7);
  const auto uniform = [&] { return std::uniform_real_distribution<double>(0, 1)(random); };
  const std::string digest = session.digest("whole");
  const std::vector<std::string> metrics = session.metrics("whole");
  REQUIRE(metrics.size() == static_cast<size_t>(steps));
  double save_seconds = 0.003;  // the part of a save in which kills fall: adapts to this disk
  int in_save = 0, in_delete = 0, in_start = 0, elsewhere = 0, done = 0, most_lost = 0, runs = 0;
  while (done < kills) {
    const std::string name = concat("killed", ++runs), run = folder / name;
    fs::create_directories(run + "/ckpt");  // to be watched before the first job makes it
    uint64_t newest = 0, incarnation = 0;
    bool finished = false;
    while (!finished && done < kills) {
      INFO("kill " << done << ", newest " << newest << "\n" << session.log_tail());
      const bool aim_at_save = 2 * in_save <= done + 1;
      Watch watch(run + "/ckpt");
      Program job(session.command(name), session.log());
      int code = Program::kStillRunning;
      if (aim_at_save) {
        const int nth = 1 + static_cast<int>(random() % 3);
        while (!job.poll(code) && watch.seen() < nth && job.age() < kPatience) {
        }
        const test::Clock::time_point seen = test::Clock::now();
        const double delay = uniform() * save_seconds;
        while (test::seconds_since(seen) < delay) {
        }
      } else {
        const double delay = uniform() * (start_seconds + 4 * save_interval);
        while (!job.poll(code) && job.age() < delay) std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
      if (job.running()) {
        job.signal(SIGKILL);
        code = job.wait(kPatience);
      }
      finished = code == 0;  // the machine slept and the job did not: the rest of the kills need another run
      if (finished) break;
      REQUIRE(code == 128 + SIGKILL);
      ++done;

      Remains remains = look(run);
      const bool claimed = remains.incarnation > incarnation;  // else what lies there is of the job before
      remains.in_save = remains.in_save && claimed, remains.in_delete = remains.in_delete && claimed;
      incarnation = remains.incarnation;
      if (remains.in_save) {
        ++in_save;
      } else if (remains.in_delete) {
        ++in_delete;
      } else if (!claimed || !remains.started) {
        ++in_start;
      } else {
        ++elsewhere;
      }
      if (aim_at_save) save_seconds = std::clamp(save_seconds * (remains.in_save ? 1.1 : 0.8), 1e-4, 1.0);
      // Nothing that was committed is gone, and what has to be trained again is no more than a save interval and what was trained during a save.
      REQUIRE(remains.newest >= newest);
      newest = remains.newest;
      if (fs::exists(run + "/metrics.jsonl")) {
        const int lost = static_cast<int>(last_logged_step(run)) - static_cast<int>(newest);
        most_lost = std::max(most_lost, lost);
        REQUIRE(lost <= 2 * kSaveEvery);
      }
    }
    INFO(session.log_tail());
    REQUIRE(session.complete(session.command(name)) == 0);
    CHECK(session.digest(name) == digest);
    CHECK(session.metrics(name) == metrics);
  }
  std::printf(
      "%d of %d kills of %d run%s survived: %d inside a save, %d inside a deletion, %d while starting, %d elsewhere; at most %d steps lost; %.1f ms "
      "a "
      "step\n",
      done, kills, runs, runs == 1 ? "" : "s", in_save, in_delete, in_start, elsewhere, most_lost, whole_seconds * 1e3 / steps);
  CHECK(3 * in_save >= kills);  // half are aimed at; on a busy machine some come late
}

}  // namespace
}  // namespace heddle::killed
