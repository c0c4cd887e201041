// The real program, killed again and again (SIGKILL) while one run is made: half of the kills are to fall inside a save, and a
// third must. What the run ends with, weights, moments, cursor, counters and log, is bit for bit what a run gives that nobody touched.
//
// HEDDLE_KILLS sets the number of kills, 54 by default: the manual restarts and lost hosts of a 175B-parameter run (OPT-175B logbook); the long form
// takes 466, the interruptions of Llama 3 405B.
//
// How it is known that a kill fell inside a save: a save makes its directory first and renames its manifest last, so a dead job's directory
// without a manifest, left behind by the incarnation that was killed, is a save that the kill cut. Nothing in the program helps the test: the
// directory's creation is watched from outside (inotify), and the kill comes after a random part of a save's length.
#include <poll.h>
#include <sys/inotify.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <random>

#include "checkpoint/run_directory.h"
#include "kernels/api/check.h"
#include "tests/data/support.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;
using test::Program;
using test::Scratch;
using test::slurp;

constexpr int kSaveEvery = 5;
constexpr int kStepsPerKill = 24;  // a killed job gets none to five saves done: enough that the run is not over before the last kill
constexpr double kPatience = 120;  // seconds for what takes a fraction of one

int environment_number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoi(text) : otherwise;
}

class Session {
 public:
  Session(const Scratch& folder, int steps) : folder_(folder), steps_(steps) {
    std::mt19937 random(1);
    std::string text;
    for (int document = 0; document < 400; ++document) {
      for (int words = 2 + static_cast<int>(random() % 12); words > 0; --words) {
        for (int letters = 1 + static_cast<int>(random() % 7); letters > 0; --letters) text += static_cast<char>('a' + random() % 20);
        text += words > 1 ? ' ' : '\n';
      }
      text += '\n';
    }
    folder.write("words.txt", text);
    REQUIRE(complete({HEDDLE_PROGRAM, "tokenize", "--input", folder / "words.txt", "--tokenizer", "bytes", "--document-separator", "blank-line",
                      "--val-fraction", "0.1", "--out", folder / "shards"}) == 0);
  }

  std::vector<std::string> command(const std::string& run) const {
    return {HEDDLE_PROGRAM,
            "pretrain",
            "--out",
            folder_ / run,
            "--data",
            folder_ / "shards/*_train_*.bin",
            "--val",
            folder_ / "shards/*_val_*.bin",
            "--device",
            "cpu",
            "--precision",
            "fp32",
            "--layers",
            "2",
            "--heads",
            "4",
            "--dim",
            "64",
            "--seq",
            "32",
            "--batch",
            "2",
            "--total-batch-tokens",
            "64",
            "--lr",
            "0.003",
            "--warmup",
            "10",
            "--steps",
            std::to_string(steps_),
            "--save-every",
            std::to_string(kSaveEvery),
            "--eval-every",
            "50",
            "--eval-tokens",
            "200",
            "--threads",
            "1"};
  }
  int complete(const std::vector<std::string>& arguments) const { return Program(arguments, log()).wait(600); }
  std::string log() const { return folder_ / "log.txt"; }
  std::string log_tail() const {
    const std::string text = slurp(log());
    return text.substr(text.size() - std::min<size_t>(text.size(), 2000));
  }
  std::string digest(const std::string& run) const {
    const std::string out = folder_ / (run + ".digest");
    REQUIRE(Program({HEDDLE_PROGRAM, "inspect", folder_ / run, "--digest"}, out).wait(kPatience) == 0);
    return slurp(out);
  }
  // metrics.jsonl without what a clock measured.
  std::vector<std::string> metrics(const std::string& run) const {
    std::vector<std::string> lines;
    const std::string text = slurp(folder_ / (run + "/metrics.jsonl"));
    for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
      std::string line = text.substr(begin, end - begin);
      for (const char* clock : {"\"tokens_per_s\":", "\"step_ms\":"}) {
        const size_t at = line.find(clock);
        if (at != std::string::npos) line.erase(at, line.find_first_of(",}", at) - at);
      }
      lines.push_back(line);
    }
    return lines;
  }

 private:
  const Scratch& folder_;
  int steps_;
};

// What a look at the run directory shows after a kill.
struct Remains {
  uint64_t newest = 0;  // highest committed step
  uint64_t incarnation = 0;
  bool started = false;    // the job had decided where to begin
  bool in_save = false;    // its save has a directory and no manifest
  bool in_delete = false;  // an old checkpoint is half deleted: its manifest is retired
};

Remains look(const std::string& run) {
  Remains out;
  if (!fs::exists(run + "/ckpt")) return out;
  for (const auto& entry : fs::directory_iterator(run + "/inc")) {
    if (const auto n = parse_number(entry.path().filename().string())) out.incarnation = std::max(out.incarnation, *n);
  }
  out.started = fs::exists(concat(run, "/inc/", out.incarnation, ".base"));
  for (const auto& entry : fs::directory_iterator(run + "/ckpt")) {
    const auto id = parse_checkpoint_name(entry.path().filename().string());
    if (!id) continue;
    if (fs::exists(entry.path() / kManifest)) {
      out.newest = std::max(out.newest, id->step);
    } else if (fs::exists(entry.path() / kManifestRetired)) {
      out.in_delete = true;
    } else if (id->incarnation == out.incarnation) {
      out.in_save = true;
    }
  }
  return out;
}

uint64_t last_logged_step(const std::string& run) {
  const std::string text = slurp(run + "/metrics.jsonl");
  const size_t end = text.rfind('\n');
  if (end == std::string::npos) return 0;
  const size_t previous = text.rfind('\n', end - 1);
  const std::string line = text.substr(previous == std::string::npos ? 0 : previous + 1);
  return std::stoull(line.substr(line.find("\"step\":") + 7));
}

// Tells when directories appear in `path`.
class Watch {
 public:
  explicit Watch(const std::string& path) : handle_(::inotify_init1(IN_NONBLOCK | IN_CLOEXEC)) {
    REQUIRE(handle_ >= 0);
    REQUIRE(::inotify_add_watch(handle_, path.c_str(), IN_CREATE) >= 0);
  }
  ~Watch() { ::close(handle_); }
  // How many so far, after waiting for more for a few milliseconds.
  int seen() {
    pollfd wait{handle_, POLLIN, 0};
    ::poll(&wait, 1, 5);
    alignas(inotify_event) char buffer[4096];
    for (ssize_t n; (n = ::read(handle_, buffer, sizeof buffer)) > 0;) {
      for (ssize_t at = 0; at < n; at += static_cast<ssize_t>(sizeof(inotify_event) + reinterpret_cast<inotify_event*>(buffer + at)->len)) ++count_;
    }
    return count_;
  }

 private:
  int handle_, count_ = 0;
};

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
}  // namespace heddle
