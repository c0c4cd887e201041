// Two ranks under mpirun under `heddle supervise`, killed again and again (SIGKILL): a rank or the launcher, half of the kills inside a save. Every
// process of a killed job is gone before the next start, and the run ends, without anybody's doing, with the bits of one that nobody touched.
//
// HEDDLE_SUPERVISED_KILLS sets the number of kills, 12 by default.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <utility>

#include "tests/train/kills_support.h"

namespace heddle::killed {
namespace {

constexpr int kStepsPerKill = 48;  // three times what a killed start gets to at most

std::vector<pid_t> children(pid_t parent) {
  std::ifstream in(concat("/proc/", parent, "/task/", parent, "/children"));
  return {std::istream_iterator<pid_t>(in), {}};
}
bool is_running(pid_t process) {
  std::string stat;
  std::ifstream in(concat("/proc/", process, "/stat"));
  std::getline(in, stat);
  const size_t end = stat.rfind(") ");
  return end != std::string::npos && stat[end + 2] != 'Z';
}

TEST_CASE("a supervised job whose ranks and launchers are killed at random times ends with the bits of one that nobody touched") {
  const int kills = environment_number("HEDDLE_SUPERVISED_KILLS", 12), steps = kills * kStepsPerKill;
  ::unsetenv("HEDDLE_SUPERVISED_KILLS");  // the program refuses HEDDLE_ variables that are no option of its own
  for (const char* allow : {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_mpi_yield_when_idle"}) ::setenv(allow, "1", 1);
  const Scratch folder;
  const Session session(folder, steps);
  const auto on_two_ranks = [&](const std::string& run) {
    std::vector<std::string> words = {HEDDLE_MPIRUN, "-np", "2", "--oversubscribe"};
    for (const std::string& word : session.command(run)) words.push_back(word == "64" && words.back() == "--total-batch-tokens" ? "128" : word);
    return words;
  };
  const test::Clock::time_point begin = test::Clock::now();
  REQUIRE(session.complete(on_two_ranks("whole")) == 0);
  const double whole_seconds = test::seconds_since(begin);
  const test::Clock::time_point again = test::Clock::now();
  REQUIRE(session.complete(on_two_ranks("whole")) == 0);  // has nothing to do: the time a start takes
  const double start_seconds = test::seconds_since(again), save_interval = std::max(whole_seconds - start_seconds, 0.0) * kSaveEvery / steps;
  const std::string digest = session.digest("whole");
  const std::vector<std::string> metrics = session.metrics("whole");

  std::vector<std::string> supervised = {HEDDLE_PROGRAM, "supervise", "--max-restarts", "100", "--backoff", "0.3s", "--most-backoff", "0.3s", "--"};
  for (const std::string& word : on_two_ranks("killed")) supervised.push_back(word);
  const std::string run = folder / "killed", log = session.log();
  std::filesystem::create_directories(run + "/ckpt");
  std::mt19937_64 random(11);
  const auto uniform = [&] { return std::uniform_real_distribution<double>(0, 1)(random); };
  Program supervisor(supervised, log);
  int done = 0, in_save = 0, launchers = 0, code = 0;
  double save_seconds = 0.005;
  uint64_t incarnation = 0;
  pid_t launcher = 0;
  const auto pause = [] { std::this_thread::sleep_for(std::chrono::milliseconds(1)); };
  while (done < kills) {
    INFO("kill " << done << "\n" << session.log_tail());
    // The next start and its ranks.
    const test::Clock::time_point waiting = test::Clock::now();
    std::vector<pid_t> ranks;
    for (;;) {
      REQUIRE(!supervisor.poll(code));  // it would have ended the run: too few steps for the kills
      REQUIRE(test::seconds_since(waiting) < kPatience);
      const std::vector<pid_t> now = children(supervisor.pid());
      if (now.size() == 1 && now[0] != launcher && (ranks = children(now[0])).size() == 2) {
        launcher = now[0];
        break;
      }
      pause();
    }
    const bool aim_at_save = 2 * in_save <= done + 1;
    if (aim_at_save) {
      Watch watch(run + "/ckpt");
      const int nth = 1 + static_cast<int>(random() % 3);
      const test::Clock::time_point armed = test::Clock::now();
      while (watch.seen() < nth && test::seconds_since(armed) < kPatience) {
      }
      const test::Clock::time_point seen = test::Clock::now();
      const double delay = uniform() * save_seconds;
      while (test::seconds_since(seen) < delay) {
      }
    } else {
      const test::Clock::time_point armed = test::Clock::now();
      const double delay = uniform() * (start_seconds + 2 * save_interval);
      while (test::seconds_since(armed) < delay && is_running(launcher)) pause();
    }
    const size_t victim = random() % 3;
    launchers += victim == 2;
    ::kill(victim == 2 ? launcher : ranks[victim], SIGKILL);
    ++done;
    // The whole job is gone before the next one starts.
    const test::Clock::time_point killed = test::Clock::now();
    while (is_running(launcher) && test::seconds_since(killed) < kPatience) pause();
    while (test::seconds_since(killed) < kPatience) {
      const std::vector<pid_t> left = children(supervisor.pid());
      if (left.empty() || (left.size() == 1 && left[0] != launcher && left[0] != ranks[0] && left[0] != ranks[1])) break;
      pause();
    }
    const Remains remains = look(run);
    CHECK(test::seconds_since(killed) < 10);
    for (const pid_t rank : ranks) CHECK(!is_running(rank));
    const bool cut = remains.in_save && remains.incarnation > std::exchange(incarnation, remains.incarnation);
    in_save += cut;
    if (aim_at_save) save_seconds = std::clamp(save_seconds * (cut ? 1.1 : 0.8), 2e-4, 1.0);
  }
  code = supervisor.wait(600);
  INFO(session.log_tail());
  REQUIRE(code == 0);
  CHECK(session.digest("killed") == digest);
  CHECK(session.metrics("killed") == metrics);
  const std::string incidents = slurp(run + "/incidents.jsonl");
  CHECK(std::count(incidents.begin(), incidents.end(), '\n') == done + 1);
  std::printf("%d of %d kills survived under supervise: %d of a launcher, %d inside a save; %.1f ms a step\n", done, kills, launchers, in_save,
              whole_seconds * 1e3 / steps);
  CHECK(4 * in_save >= kills);  // half are aimed at; on a busy machine some come late
}

}  // namespace
}  // namespace heddle::killed
