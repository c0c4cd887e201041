// heddle-mutate: would a kernel's own tests notice if one synchronisation were missing?
//
//   heddle-mutate [options] -- ./norm_test_check [arguments of the test]
//
// Runs the test program once to learn which barriers, waits, fences and arrivals its kernels execute, then once per site and mutation with that one
// operation left out (drop), weakened or left to one lane of each warp (elect), without recompiling anything. A mutation counts as found when the
// program fails, dies or hangs. Survivors are listed; they are gaps in the tests, or synchronisation that nothing needs. The exit code is 0 if there
// are none.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <list>
#include <string>
#include <thread>
#include <vector>

#include "kernels/api/check.h"

extern char** environ;

namespace heddle::sim {
namespace {

constexpr const char* kUsage =
    "usage: heddle-mutate [options] -- PROGRAM [ARGUMENTS]\n"
    "  --only TEXT      mutate only sites whose line holds TEXT (kernels/cuda/norm.cu, __syncthreads, :drop); may be repeated\n"
    "  --ignore TEXT    leave out such sites: for synchronisation that the tests cannot miss; may be repeated\n"
    "  --timeout N      seconds after which a run counts as hung (60)\n"
    "  --jobs N         runs at a time, a whole number (1)\n"
    "  --list           print the mutations and stop\n"
    "  A source line with the comment 'heddle-mutate: ignore' (or 'ignore drop', 'ignore weaken', 'ignore elect') is left out as well.\n";

struct Options {
  std::vector<std::string> only, ignore, command;
  double timeout = 60;
  int jobs = 1;
  bool list = false, help = false;
};

enum class Verdict { passed, failed, died, hung };

struct Outcome {
  Verdict verdict = Verdict::passed;
  std::string end;   // "exit code 1", "signal 11 (Segmentation fault)", "timed out after 60 s"
  std::string said;  // by the program about it; may be empty
};

// SIGINT and the like end the process at its next look at this, so that children and files are cleared away.
volatile sig_atomic_t stop_signal = 0;

struct Stopped {};

void stop_on_signals() {
  for (const int number : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action = {};
    action.sa_handler = [](int signal) { stop_signal = signal; };
    sigaction(number, &action, nullptr);
  }
}

double number(const std::string& text, const std::string& flag) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  HEDDLE_CHECK(!text.empty() && *end == 0 && value > 0 && value < 1e6, "heddle-mutate", flag, " takes a positive number, not '", text, "'");
  return value;
}

int whole_number(const std::string& text, const std::string& flag) {
  const bool digits = !text.empty() && text.size() <= 4 && text.find_first_not_of("0123456789") == std::string::npos;
  const int value = digits ? std::atoi(text.c_str()) : 0;
  HEDDLE_CHECK(value >= 1 && value <= 1024, "heddle-mutate", flag, " takes a whole number from 1 to 1024, not '", text, "'");
  return value;
}

Options parse(int argc, char** argv) {
  Options options;
  int i = 1;
  for (; i < argc && std::string(argv[i]) != "--"; ++i) {
    const std::string flag = argv[i];
    if (flag == "--help" || flag == "-h") {
      options.help = true;
      return options;
    }
    if (flag == "--list") {
      options.list = true;
      continue;
    }
    const bool takes_value = flag == "--only" || flag == "--ignore" || flag == "--timeout" || flag == "--jobs";
    HEDDLE_CHECK(takes_value && i + 1 < argc, "heddle-mutate", takes_value ? "a value is missing after " : "unknown option ", flag, "\n  ", kUsage);
    const std::string value = argv[++i];
    if (flag == "--only") options.only.push_back(value);
    if (flag == "--ignore") options.ignore.push_back(value);
    if (flag == "--timeout") options.timeout = number(value, flag);
    if (flag == "--jobs") options.jobs = whole_number(value, flag);
  }
  for (++i; i < argc; ++i) options.command.emplace_back(argv[i]);
  HEDDLE_CHECK(!options.command.empty(), "heddle-mutate", "no program to run\n  ", kUsage);
  return options;
}

// A folder for what the runs write, removed at the end whatever happens.
class Scratch {
 public:
  Scratch() {
    const char* parent = std::getenv("TMPDIR");
    path_ = std::string(parent != nullptr && *parent != 0 ? parent : "/tmp") + "/heddle-mutate-XXXXXX";
    HEDDLE_CHECK(mkdtemp(path_.data()) != nullptr, "heddle-mutate", "cannot make a temporary folder ", path_, ": ", std::strerror(errno));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string new_file() { return path_ + "/" + std::to_string(count_++); }

 private:
  std::string path_;
  int count_ = 0;
};

// One run of the program with one more environment variable, in a process group of its own; its output goes to a file. What still runs at the end of
// this object is killed, and so is what the program has started.
class Child {
 public:
  Child(const Options& options, Scratch& scratch, const std::string& variable, const std::string& mutation);
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  ~Child() {
    if (pid_ > 0) reap();
    unlink(output_path_.c_str());
  }
  const std::string& mutation() const { return mutation_; }
  bool finished(Outcome& outcome);

 private:
  int reap();

  std::string mutation_, output_path_;
  double timeout_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  pid_t pid_ = -1;
};

Child::Child(const Options& options, Scratch& scratch, const std::string& variable, const std::string& mutation)
    : mutation_(mutation), output_path_(scratch.new_file()), timeout_(options.timeout) {
  std::vector<std::string> environment;
  for (char** entry = environ; *entry != nullptr; ++entry)
    if (std::strncmp(*entry, "HEDDLE_SIM_MUTATE", 17) != 0) environment.emplace_back(*entry);
  environment.push_back(variable);
  const auto pointers = [](const std::vector<std::string>& texts) {
    std::vector<char*> result;
    for (const std::string& text : texts) result.push_back(const_cast<char*>(text.c_str()));
    result.push_back(nullptr);
    return result;
  };
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);  // another process group may not read the terminal
  posix_spawn_file_actions_addopen(&actions, 1, output_path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);  // its number: the child's
  const int error =
      posix_spawnp(&pid_, options.command[0].c_str(), &actions, &attributes, pointers(options.command).data(), pointers(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&actions);
  HEDDLE_CHECK(error == 0, "heddle-mutate", "cannot start ", options.command[0], ": ", std::strerror(error));
}

// Kills the group before its leader is waited for: until then nobody else can have the number.
int Child::reap() {
  int status = 0;
  kill(-pid_, SIGKILL);
  waitpid(pid_, &status, 0);
  pid_ = -1;
  return status;
}

// The machine's report if there is one, else the last line.
std::string telling_line(const std::string& path) {
  std::ifstream in(path);
  std::string line, last;
  while (std::getline(in, line)) {
    const size_t report = line.find("[sim] ");
    if (report != std::string::npos) return line.substr(report);
    if (line.find_first_not_of(" =-") != std::string::npos) last = line;
  }
  return last;
}

bool Child::finished(Outcome& outcome) {
  if (stop_signal != 0) throw Stopped{};
  siginfo_t info = {};
  waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
  const bool ended = info.si_pid == pid_;
  const std::chrono::duration<double> age = std::chrono::steady_clock::now() - start_;
  if (!ended && age.count() < timeout_) return false;
  const int status = reap();
  if (!ended) {
    outcome = {Verdict::hung, concat("timed out after ", timeout_, " s"), ""};
  } else if (WIFEXITED(status)) {
    const int code = WEXITSTATUS(status);
    outcome = {code == 0 ? Verdict::passed : Verdict::failed, concat("exit code ", code), ""};
  } else {
    outcome = {Verdict::died, concat("signal ", WTERMSIG(status), " (", strsignal(WTERMSIG(status)), ")"), ""};
  }
  if (outcome.verdict != Verdict::passed) outcome.said = telling_line(output_path_);
  return true;
}

void pause() {
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
}

bool holds_one(const std::string& text, const std::vector<std::string>& parts) {
  return std::any_of(parts.begin(), parts.end(), [&](const std::string& part) { return text.find(part) != std::string::npos; });
}

// The line of source that a mutation, path:line#operation:kind, stands on. The path is relative to the tree the program was built from.
std::string source_line(const std::string& mutation) {
  const size_t hash = mutation.find('#'), colon = mutation.rfind(':', hash);
  if (hash == std::string::npos || colon == std::string::npos) return "";
  const std::string path = mutation.substr(0, colon);
  std::ifstream in(path);
  if (!in) in.open(std::string(HEDDLE_SOURCE_ROOT) + "/" + path);
  std::string text;
  for (int left = std::atoi(mutation.c_str() + colon + 1); left > 0; --left)
    if (!std::getline(in, text)) return "";
  return text;
}

bool ignored_in_source(const std::string& mutation) {
  static const std::string kMark = "heddle-mutate: ignore";
  const std::string text = source_line(mutation);
  const size_t at = text.find(kMark);
  if (at == std::string::npos) return false;
  const std::string rest = text.substr(at + kMark.size());
  const bool names_kind = rest.rfind(" drop", 0) == 0 || rest.rfind(" weaken", 0) == 0 || rest.rfind(" elect", 0) == 0;
  return !names_kind || rest.find(mutation.substr(mutation.rfind(':') + 1)) == 1;
}

// The mutations of all that a run without any executes.
std::vector<std::string> executed_mutations(const Options& options, Scratch& scratch) {
  const std::string list_path = scratch.new_file();
  Child child(options, scratch, "HEDDLE_SIM_MUTATE_LIST=" + list_path, "");
  Outcome outcome;
  while (!child.finished(outcome)) pause();
  HEDDLE_CHECK(outcome.verdict == Verdict::passed, "heddle-mutate", "the program fails without any mutation: ", outcome.end,
               outcome.said.empty() ? "" : ": ", outcome.said);
  std::vector<std::string> mutations;
  std::ifstream in(list_path);
  for (std::string line; std::getline(in, line);) mutations.push_back(line);
  HEDDLE_CHECK(!mutations.empty(), "heddle-mutate", "no synchronisation was executed: is it a test of the simulated machine?");
  return mutations;
}

std::vector<std::string> find_mutations(const Options& options, Scratch& scratch) {
  std::vector<std::string> mutations = executed_mutations(options, scratch);
  const size_t executed = mutations.size();
  if (!options.only.empty()) std::erase_if(mutations, [&](const std::string& mutation) { return !holds_one(mutation, options.only); });
  HEDDLE_CHECK(!mutations.empty(), "heddle-mutate", "none of the ", executed, " mutations matches --only; --list without it shows them");
  const std::string chosen = concat("each of the ", mutations.size(), " mutations ", options.only.empty() ? "" : "that --only chooses ");
  const size_t ignored = std::erase_if(mutations, [&](const std::string& mutation) { return holds_one(mutation, options.ignore); });
  std::erase_if(mutations, ignored_in_source);
  HEDDLE_CHECK(!mutations.empty(), "heddle-mutate", chosen, "is left out by ", ignored > 0 ? "--ignore or " : "",
               "'heddle-mutate: ignore' in the source");
  return mutations;
}

const char* name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::passed: return "SURVIVED";
    case Verdict::failed: return "found   ";
    case Verdict::died: return "died    ";
    case Verdict::hung: return "hung    ";
  }
  return "";
}

// What is printed of a run with a mutation.
std::string text_of(const Outcome& outcome) {
  if (outcome.verdict == Verdict::passed) return "";
  return outcome.said.empty() ? outcome.end : outcome.said;
}

int run(const Options& options) {
  if (options.help) {
    std::cout << kUsage;
    return 0;
  }
  stop_on_signals();
  Scratch scratch;
  const std::vector<std::string> mutations = find_mutations(options, scratch);
  if (options.list) {
    for (const std::string& mutation : mutations) std::cout << mutation << '\n';
    return 0;
  }
  std::list<Child> running;
  size_t next = 0;
  int survivors = 0;
  while (next < mutations.size() || !running.empty()) {
    for (; next < mutations.size() && running.size() < static_cast<size_t>(options.jobs); ++next)
      running.emplace_back(options, scratch, "HEDDLE_SIM_MUTATE=" + mutations[next], mutations[next]);
    pause();
    for (auto child = running.begin(); child != running.end();) {
      Outcome outcome;
      if (!child->finished(outcome)) {
        ++child;
        continue;
      }
      survivors += outcome.verdict == Verdict::passed ? 1 : 0;
      std::cout << name_of(outcome.verdict) << ' ' << child->mutation() << "  " << text_of(outcome) << std::endl;
      child = running.erase(child);
    }
  }
  std::cout << mutations.size() - static_cast<size_t>(survivors) << " of " << mutations.size() << " mutations found" << std::endl;
  return survivors == 0 ? 0 : 1;
}

}  // namespace
}  // namespace heddle::sim

int main(int argc, char** argv) {
  try {
    return heddle::sim::run(heddle::sim::parse(argc, argv));
  } catch (const heddle::sim::Stopped&) {
    // Everything is cleared away; whoever waits learns of the signal.
    signal(heddle::sim::stop_signal, SIG_DFL);
    raise(heddle::sim::stop_signal);
    return 2;
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
