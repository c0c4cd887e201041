// How a run is asked to stop, what it leaves, and what the shell, the terminal and the time limit make of it.
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <memory>
#include <utility>

#include "tests/app/workplace.h"
#include "tests/support/program.h"

namespace {

namespace fs = std::filesystem;
using heddle::test::has;
using heddle::test::Program;
using heddle::test::Result;
using heddle::test::Workplace;

constexpr double kPatience = 60;  // seconds for what takes a fraction of one

const std::string kRun =
    "pretrain --data 'shards/*_train_*.bin' --out run --device cpu --precision fp32 --layers 1 --heads 2 --dim 16 --seq 16 --batch 2 --threads 1"
    " --no-tensorboard --log-every 1000000";

struct Shards : Workplace {
  Shards() {
    std::string text;
    for (int i = 0; i < 300; ++i) text += std::string(1 + i % 7, static_cast<char>('a' + i % 26)) + (i % 9 == 8 ? "\n\n" : " ");
    write("words.txt", text);
    REQUIRE(heddle("tokenize --input words.txt --tokenizer bytes --document-separator blank-line --out shards").code == 0);
  }
  // bash, in a process group of its own, with what a login shell's children have: no signal ignored. `exec` in `script` makes it the program.
  std::unique_ptr<Program> shell(const std::string& script, const std::function<void()>& prepare = {}) const {
    const std::string in = "cd '" + path.string() + "'; heddle() { '" HEDDLE_PROGRAM "' \"$@\"; }; heddle='" HEDDLE_PROGRAM "'; " + script;
    return std::make_unique<Program>(std::vector<std::string>{"/bin/bash", "-c", in}, *this / "log.txt", [prepare] {
      for (const int signal : {SIGINT, SIGHUP, SIGTERM, SIGPIPE}) ::signal(signal, SIG_DFL);
      prepare ? prepare() : static_cast<void>(::setpgid(0, 0));
    });
  }
  size_t logged() const {
    const std::string text = read("run/metrics.jsonl");
    return static_cast<size_t>(std::count(text.begin(), text.end(), '\n'));
  }
  void wait_for_steps(const Program& job, size_t steps) const {
    while (logged() < steps && job.age() < kPatience) std::this_thread::sleep_for(std::chrono::milliseconds(2));
    REQUIRE(logged() >= steps);
  }
  // Nothing that was logged is missing in the newest checkpoint.
  void check_saved() const {
    const Result r = heddle("inspect run --digest");
    CHECK(r.code == 0);
    CHECK(has(r.out, "step " + std::to_string(logged()) + " digest "));
  }
};

TEST_CASE("each signal saves the step it finds: 75 asks for another start, Ctrl-C ends as Ctrl-C") {
  for (const auto& [signal, code] : std::vector<std::pair<int, int>>{{SIGTERM, 75}, {SIGUSR1, 75}, {SIGHUP, 75}, {SIGINT, 128 + SIGINT}}) {
    INFO("signal " << signal);
    const Shards w;
    const auto job = w.shell("exec $heddle " + kRun + " --steps 10000000");
    w.wait_for_steps(*job, 3);
    job->signal(signal);
    CHECK(job->wait(kPatience) == code);
    w.check_saved();
    CHECK(has(w.read("log.txt"), "start the same command again to go on"));
  }
}

TEST_CASE("SIGHUP and SIGINT that were ignored at the start, as by nohup, stay ignored") {
  const Shards w;
  const auto job = w.shell("trap '' HUP INT; exec $heddle " + kRun + " --steps 10000000");
  w.wait_for_steps(*job, 3);
  job->signal(SIGHUP);
  job->signal(SIGINT);
  w.wait_for_steps(*job, w.logged() + 500);
  CHECK(!has(w.read("log.txt"), "asked to stop"));
  job->signal(SIGTERM);
  CHECK(job->wait(kPatience) == 75);
  w.check_saved();
}

// The signal goes to the whole group, as a terminal sends it. A shell leaves its loop when the program died of SIGINT, not when it exited with a
// code.
TEST_CASE("Ctrl-C ends the shell's loop around a run, whatever kind of loop it is") {
  const std::vector<std::string> loops = {"for i in 1 2 3; do echo x >>starts; heddle " + kRun + " --steps 10000000; done; echo over >>starts",
                                          "until echo x >>starts; heddle " + kRun + " --steps 10000000; do sleep 0.01; done; echo over >>starts",
                                          "while echo x >>starts; heddle " + kRun + " --steps 10000000; [ $? != 0 ]; do :; done; echo over >>starts"};
  for (const std::string& loop : loops) {
    INFO(loop);
    const Shards w;
    const auto job = w.shell(loop);
    w.wait_for_steps(*job, 3);
    job->signal_group(SIGINT);
    CHECK(job->wait(kPatience) == 128 + SIGINT);
    CHECK(w.read("starts") == "x\n");
    w.check_saved();
  }
}

TEST_CASE("a limit too short for anything still gets a run to its end, one step a start") {
  const Shards w;
  const std::string command = kRun + " --steps 3 --time-limit 0.001s";
  for (int start = 1; start <= 3; ++start) {
    const Result r = w.heddle(command);
    INFO(r.out << r.err);
    CHECK(r.code == (start < 3 ? 75 : 0));
    CHECK(w.logged() == static_cast<size_t>(start));
    w.check_saved();
  }
  // Two micro-steps: the limit does not cut the first step between them.
  const Shards other;
  CHECK(other.heddle(kRun + " --steps 2 --total-batch-tokens 64 --time-limit 0.001s").code == 75);
  CHECK(other.logged() == 1);
}

// Standard output and error are a terminal, the program its foreground process; then it goes away, as when a window is closed or a line drops.
struct Terminal {
  int person = ::posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
  std::string name;
  Terminal() {
    REQUIRE(person >= 0);
    REQUIRE(::grantpt(person) == 0);
    REQUIRE(::unlockpt(person) == 0);
    name = ::ptsname(person);
  }
  ~Terminal() { hang_up(); }
  void hang_up() {
    if (person >= 0) ::close(std::exchange(person, -1));
  }
  std::function<void()> prepare() const {
    return [this] {
      ::setsid();
      const int line = ::open(name.c_str(), O_RDWR);
      ::ioctl(line, TIOCSCTTY, 0);
      for (const int handle : {0, 1, 2}) ::dup2(line, handle);
    };
  }
};

TEST_CASE("a terminal that goes away stops the run after a save, or, when that is ignored, does not disturb it") {
  for (const bool ignored : {false, true}) {
    INFO("ignored " << ignored);
    const Shards w;
    Terminal terminal;
    const std::string lines = " --log-every 1";  // it keeps on talking to nobody
    const auto job = w.shell((ignored ? "trap '' HUP; " : "") + ("exec $heddle " + kRun) + lines + " --steps " + (ignored ? "4000" : "10000000"),
                             terminal.prepare());
    std::thread reader([&] {
      char buffer[4096];
      for (int n = 0; n < 20; ++n) {
        if (::read(terminal.person, buffer, sizeof buffer) <= 0) break;
      }
    });
    reader.join();
    w.wait_for_steps(*job, 3);
    terminal.hang_up();
    CHECK(job->wait(kPatience) == (ignored ? 0 : 75));
    w.check_saved();
  }
}

TEST_CASE("messages that nobody reads any more fail no save and change no exit code") {
  const Shards w;
  // The reader of both streams is gone before the first line; the codes go where they can be read.
  const std::string quiet = kRun + " --log-every 1 --steps ";
  for (const auto& [command, code] : std::vector<std::pair<std::string, std::string>>{
           {quiet + "3", "0"}, {quiet + "10000000 --time-limit 0.2s", "75"}, {quiet + "5 --seed 7", "78"}}) {
    INFO(command);
    const auto job = w.shell("{ heddle " + command + "; echo $? >code.txt; } 2>&1 | true");
    job->wait(kPatience);
    CHECK(w.read("code.txt") == code + "\n");
  }
  w.check_saved();
}

}  // namespace
