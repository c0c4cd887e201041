// Any command line of heddle pretrain, stopped at any moment and started again until it ends, gives bit for bit what it gives when nobody stops it;
// its config.toml starts the same run anew; and what is left can be evaluated and sampled from.
//
// HEDDLE_FLAG_SETS sets how many random command lines are tried, 60 by default, and HEDDLE_FLAG_SEED the first one's seed: each later one's is one
// more, so that a failing one is repeated alone. A run that ended before its stop came is begun anew and stopped earlier; one that no stop reaches
// fails.
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>
#include <set>
#include <sstream>

#include "kernels/api/check.h"
#include "tests/data/support.h"
#include "tests/support/catch.h"
#include "tests/support/program.h"
#include "tests/train/flag_sets.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;
using test::FlagSet;
using test::Program;
using test::Scratch;
using test::slurp;
using Words = std::vector<std::string>;

constexpr double kPatience = 120;     // seconds for what takes a fraction of one
constexpr int64_t kVocabulary = 257;  // bytes and the end of text
constexpr int kRequeue = 75;

int64_t environment_number(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text ? std::atoll(text) : otherwise;
}

std::string line_of(const Words& command) {
  std::string out;
  for (const std::string& word : command) {
    const bool plain = !word.empty() && word.find_first_of(" *'\"") == std::string::npos;
    out += concat(out.empty() ? "" : " ", plain ? word : concat("'", word, "'"));
  }
  return out;
}

// The last step in a metrics.jsonl that may be growing; 0: none yet.
int64_t last_step(const std::string& file) {
  const std::string text = slurp(file);
  const size_t end = text.rfind('\n');
  if (end == std::string::npos) return 0;
  const size_t begin = end == 0 ? std::string::npos : text.rfind('\n', end - 1);
  int64_t step = 0;
  std::sscanf(text.c_str() + (begin == std::string::npos ? 0 : begin + 1), "{\"step\":%ld", &step);
  return step;
}

// What a run's metrics.jsonl says of the numbers, line by line.
struct Step {
  std::string numbers, val_loss;
};
std::vector<Step> metrics_of(const std::string& run) {
  std::vector<Step> steps;
  std::istringstream text(slurp(run + "/metrics.jsonl"));
  for (std::string line; std::getline(text, line);) {
    const auto field = [&](const char* name) {
      const size_t at = line.find(concat("\"", name, "\":"));
      return at == std::string::npos ? "" : line.substr(at, line.find_first_of(",}", at) - at);
    };
    steps.push_back({concat(field("step"), " ", field("loss"), " ", field("grad_norm"), " ", field("lr"), " ", field("tokens")), field("val_loss")});
  }
  return steps;
}

// Something that must not be, in words.
struct Fault {
  std::string text;
};
template <class... Parts>
void require(bool ok, const Parts&... parts) {
  if (!ok) throw Fault{concat(parts...)};
}

struct Shards {
  std::string train, val;
};

class Case {
 public:
  Case(const Shards& shards, const FlagSet& set) : shards_(shards), set_(set) {
    if (set.in_file) folder_.write("flags.toml", test::config_lines(set.flags));
  }

  // Nothing, or what went wrong.
  std::string run() {
    try {
      whole();
      stopped();
      anew();
      used();
      return "";
    } catch (const Fault& fault) {
      const std::string log = slurp(folder_ / "log");
      return concat(set_.in_file ? "  in a file: " : "  flags: ", line_of(set_.flags), "\n  ", line_of(doing_), "\n  ", fault.text, "\n",
                    log.substr(log.size() - std::min<size_t>(log.size(), 800)));
    }
  }
  int starts() const { return starts_; }
  int stops() const { return stops_; }

 private:
  Words launcher() const {
#ifdef HEDDLE_MPIRUN
    // Two mpiruns at a time need session directories of their own: one deletes what the other is about to use.
    if (set_.ranks > 1) {
      return {HEDDLE_MPIRUN,     "--mca",        "orte_tmpdir_base", folder_.path(), "-np", std::to_string(set_.ranks),
              "--oversubscribe", HEDDLE_PROGRAM, "pretrain"};
    }
#endif
    return {HEDDLE_PROGRAM, "pretrain"};
  }
  Words command(const std::string& run, const Words& more = {}) const {
    Words words = launcher();
    const Words flags = set_.in_file ? Words{"--config", folder_ / "flags.toml"} : set_.flags;
    for (const Words& part : {Words{"--out", folder_ / run, "--data", shards_.train, "--threads", "1"}, flags, more}) {
      words.insert(words.end(), part.begin(), part.end());
    }
    if (set_.validates) words.insert(words.end(), {"--val", shards_.val});
    return words;
  }
  // Runs to the end, or to `limit` seconds; the exit code.
  int complete(const Words& words) {
    doing_ = words;
    ++starts_;
    const int code = Program(words, folder_ / "log").wait(kPatience);
    require(code != Program::kStillRunning, "still running after ", kPatience, " s");
    return code;
  }
  void expect_done(const Words& words) {
    const int code = complete(words);
    require(code == 0, "exit code ", code, ", expected 0");
  }
  std::string digest(const std::string& run) {
    const Words words = {HEDDLE_PROGRAM, "inspect", folder_ / run, "--digest"};
    const std::string file = folder_ / (run + ".digest");
    doing_ = words;
    const int code = Program(words, file).wait(kPatience);
    require(code == 0, "exit code ", code, ": ", slurp(file));
    return slurp(file);
  }
  void expect_same(const std::string& run, const Words& words) {
    const std::vector<Step> got = metrics_of(folder_ / run);
    doing_ = words;
    for (size_t i = 0; i < std::min(got.size(), metrics_.size()); ++i) {
      const Step &now = got[i], &then = metrics_[i];
      require(now.numbers == then.numbers && now.val_loss == then.val_loss, "metrics.jsonl says ", now.numbers, " ", now.val_loss,
              "\n  and of the unstopped run ", then.numbers, " ", then.val_loss);
    }
    require(got.size() == metrics_.size(), got.size(), " lines of metrics, the unstopped run has ", metrics_.size());
    const std::string now = digest(run);
    doing_ = words;
    require(now == digest_, "the digest is ", now, "  and of the unstopped run ", digest_);
  }

  void whole() {
    expect_done(command("whole"));
    metrics_ = metrics_of(folder_ / "whole");
    digest_ = digest("whole");
    require(metrics_.size() > 1, metrics_.size(), " steps");
  }

  // Starts the run and sends it a signal once step `at` is in its log.
  int start_and_signal(const Words& words, const std::string& run, int64_t at) {
    doing_ = words;
    ++starts_;
    Program job(words, folder_ / "log");
    int code = Program::kStillRunning;
    while (last_step(run + "/metrics.jsonl") < at) {
      if (job.poll(code)) return code;
      require(job.age() < kPatience, "did not reach step ", at, " in ", kPatience, " s");
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    if (set_.ranks > 1) {
      signal_one_rank(job);
    } else {
      job.signal(set_.signal);
    }
    code = job.wait(kPatience);
    require(code != Program::kStillRunning, "still running ", kPatience, " s after signal ", set_.signal, " at step ", at);
    return code;
  }
  // One rank hears of it; all have to stop.
  void signal_one_rank(const Program& launcher) const {
    std::istringstream children(slurp(concat("/proc/", launcher.pid(), "/task/", launcher.pid(), "/children")));
    std::vector<pid_t> ranks;
    for (pid_t child; children >> child;) ranks.push_back(child);
    require(ranks.size() >= static_cast<size_t>(set_.ranks), "mpirun has ", ranks.size(), " children");
    ::kill(ranks[set_.seed % ranks.size()], set_.signal);
  }

  void stopped() {
    const std::string run = folder_ / "stopped";
    constexpr int kTries = 4;
    double part = set_.stop_at, limit = set_.time_limit;
    for (int attempt = 0; stops_ == 0; ++attempt, part /= 2, limit = attempt > 1 ? 0.001 : limit / 3) {
      require(attempt < kTries, "no stop reached the run in ", kTries, " tries");
      fs::remove_all(run);
      const Words words = set_.signal ? command("stopped") : command("stopped", {"--time-limit", concat(limit, "s")});
      stop_and_finish(words, run, part);
    }
    expect_same("stopped", doing_);
  }
  void stop_and_finish(const Words& words, const std::string& run, double part) {
    const auto steps = static_cast<double>(metrics_.size());
    const auto end_of_start = [&](int code) {
      require(code == 0 || code == kRequeue, "exit code ", code, ", expected 0 or ", kRequeue);
      if (code == kRequeue) ++stops_;
      if (code == kRequeue && stops_ == 1) changed();
      return code == 0;
    };
    if (set_.signal) {
      if (end_of_start(start_and_signal(words, run, 1 + static_cast<int64_t>(part * steps)))) return;
      const auto again = 1 + static_cast<int64_t>(set_.stop_again_at * steps);
      if (set_.stop_again_at < 1 && again > last_step(run + "/metrics.jsonl") && end_of_start(start_and_signal(words, run, again))) return;
    }
    until([&] { return end_of_start(complete(words)); });
  }

  // Each start that its limit ends has trained a step; one more may be left with the last validation.
  template <class Start>
  void until(const Start& done) const {
    for (size_t starts = 1; !done(); ++starts) {
      require(starts <= metrics_.size() + 1, starts, " starts, each ended by its limit, and the run of ", metrics_.size(), " steps is not over");
    }
  }

  // The stopped run, copied and started again with another flag than before. What the new one rules out is not said again, but is saved.
  void changed() {
    if (set_.change.empty()) return;
    const Words before = doing_;
    fs::remove_all(folder_ / "changed");
    fs::copy(folder_ / "stopped", folder_ / "changed", fs::copy_options::recursive);
    Words words = command("changed");
    const std::string& flag = set_.change.front();
    const auto drop = [&words](std::string_view name) {
      const auto at = std::find(words.begin(), words.end(), name);
      if (at != words.end()) words.erase(at, at + 2);
    };
    drop(flag);
    if (flag == "--steps") drop("--tokens");
    if (flag == "--sample-every") drop("--sample-prompt"), drop("--sample-tokens");
    if (flag == "--schedule") drop("--final-lr-fraction"), drop("--decay-fraction");
    words.insert(words.end(), set_.change.begin(), set_.change.end());
    expect_done(words);
    const std::string now = digest("changed");
    doing_ = words;
    require(!set_.same_state || now == digest_, "the digest is ", now, "  and of the run without the change ", digest_);
    doing_ = before;
  }

  void anew() {
    Words words = launcher();
    words.insert(words.end(), {"--config", folder_ / "stopped/config.toml", "--out", folder_ / "anew", "--threads", "1"});
    until([&] {  // a time limit is in the file too
      const int code = complete(words);
      require(code == 0 || (code == kRequeue && set_.signal == 0), "exit code ", code, ", expected 0");
      return code == 0;
    });
    expect_same("anew", words);
  }

  void used() {
    expect_done({HEDDLE_PROGRAM, "eval", folder_ / "stopped", "--data", shards_.val, "--tokens", "300", "--threads", "1"});
    Words words = {HEDDLE_PROGRAM, "generate", folder_ / "stopped", "--max-new-tokens", "12", "--threads", "1"};
    if (!set_.prompt.empty()) words.insert(words.end(), {"--prompt", set_.prompt});
    expect_done(words);
  }

  const Shards& shards_;
  FlagSet set_;
  Scratch folder_;
  Words doing_;
  std::vector<Step> metrics_;  // of the unstopped run
  std::string digest_;
  int starts_ = 0, stops_ = 0;
};

Shards make_shards(const Scratch& folder) {
  std::mt19937 random(1);
  std::string text;
  for (int document = 0; document < 300; ++document) {
    for (int words = 2 + static_cast<int>(random() % 12); words > 0; --words) {
      for (int letters = 1 + static_cast<int>(random() % 7); letters > 0; --letters) text += static_cast<char>('a' + random() % 20);
      text += words > 1 ? ' ' : '\n';
    }
    text += '\n';
  }
  folder.write("words.txt", text);
  REQUIRE(Program({HEDDLE_PROGRAM, "tokenize", "--input", folder / "words.txt", "--tokenizer", "bytes", "--document-separator", "blank-line",
                   "--val-fraction", "0.1", "--out", folder / "shards"},
                  folder / "log")
              .wait(kPatience) == 0);
  return {folder / "shards/*_train_*.bin", folder / "shards/*_val_*.bin"};
}

int most_ranks() {
#ifdef HEDDLE_MPIRUN
  return 2;
#else
  return 1;
#endif
}

TEST_CASE("random command lines: stopped and started again until they end, begun anew from their config.toml, evaluated and sampled from") {
  const int64_t count = environment_number("HEDDLE_FLAG_SETS", 60), first = environment_number("HEDDLE_FLAG_SEED", 1);
  ::unsetenv("HEDDLE_FLAG_SETS"), ::unsetenv("HEDDLE_FLAG_SEED");  // the program refuses HEDDLE_ variables that are no option of its own
  for (const char* name : {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_mpi_yield_when_idle", "OMP_NUM_THREADS"}) {
    ::setenv(name, "1", 1);
  }
  const Scratch folder;
  const Shards shards = make_shards(folder);
  const test::Clock::time_point begin = test::Clock::now();

  std::atomic<int64_t> next{0};
  std::mutex mutex;  // of what follows
  int64_t faults = 0, starts = 0, stops = 0, with_ranks = 0;
  std::map<std::string, int> said;  // by how many sets
  std::map<int, int> signals;
  const auto work = [&] {
    for (int64_t i; (i = next++) < count;) {
      const FlagSet set = test::random_flag_set(static_cast<uint64_t>(first + i), kVocabulary, most_ranks());
      Case one(shards, set);
      const std::string fault = one.run();
      const std::lock_guard lock(mutex);
      starts += one.starts(), stops += one.stops(), with_ranks += set.ranks > 1;
      ++signals[set.signal];
      for (const std::string& word : set.flags) {
        if (word.substr(0, 2) == "--") ++said[word];
      }
      if (fault.empty()) continue;
      ++faults;
      std::printf("set HEDDLE_FLAG_SEED=%ld HEDDLE_FLAG_SETS=1:\n%s\n", static_cast<long>(first + i), fault.c_str());
      std::fflush(stdout);
    }
  };
  std::thread other(work);  // starts children that die with it: it outlives them
  work();
  other.join();
  std::printf(
      "%ld random command lines of %zu flags, %ld on two ranks: %ld starts, %ld stops (%d SIGTERM, %d SIGUSR1, %d SIGHUP, %d time limits); %ld "
      "failed; %.0f s\n",
      static_cast<long>(count), said.size(), static_cast<long>(with_ranks), static_cast<long>(starts), static_cast<long>(stops), signals[SIGTERM],
      signals[SIGUSR1], signals[SIGHUP], signals[0], static_cast<long>(faults), test::seconds_since(begin));
  CHECK(faults == 0);
  if (count < 60) return;
  // No kind goes missing from what is drawn.
  for (const int number : {SIGTERM, SIGUSR1, SIGHUP, 0}) CHECK(signals[number] > 0);
  CHECK((with_ranks > 0 || most_ranks() == 1));
  for (const char* flag : {"--model",
                           "--depth",
                           "--layers",
                           "--head-dim",
                           "--kv-heads",
                           "--mlp",
                           "--norm",
                           "--position",
                           "--no-tied",
                           "--qk-norm",
                           "--window",
                           "--vocab",
                           "--steps",
                           "--tokens",
                           "--schedule",
                           "--warmup",
                           "--final-lr-fraction",
                           "--decay-fraction",
                           "--optimizer",
                           "--lr",
                           "--muon-lr",
                           "--muon-momentum",
                           "--no-doc-mask",
                           "--precision",
                           "--deterministic",
                           "--recompute",
                           "--total-batch-tokens",
                           "--sample-every",
                           "--sample-prompt",
                           "--eval-every",
                           "--save-every",
                           "--z-loss",
                           "--spike-z",
                           "--dp"}) {
    INFO(flag);
    CHECK(said[flag] > 0);
  }
}

}  // namespace
}  // namespace heddle
