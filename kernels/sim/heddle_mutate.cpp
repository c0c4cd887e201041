// heddle-mutate: would a kernel's own tests notice if one synchronisation were missing?
//
//   heddle-mutate [options] -- ./norm_test_check [arguments of the test]
//
// Runs the test program once to learn which barriers, waits, fences and arrivals its kernels execute, then once per site and mutation with that one
// operation left out (drop) or weakened, without recompiling anything. A mutation counts as found when the program fails, dies or hangs. Survivors
// are listed; they are gaps in the tests, or synchronisation that nothing needs. The exit code is 0 if there are none.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
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
    "  --jobs N         runs at a time (1)\n"
    "  --list           print the mutations and stop\n"
    "A source line with the comment 'heddle-mutate: ignore' (or 'ignore drop', 'ignore weaken') is left out as well.\n";

struct Options {
  std::vector<std::string> only, ignore, command;
  double timeout = 60;
  int jobs = 1;
  bool list = false, help = false;
};

struct Child {
  pid_t pid = -1;
  std::string mutation, output_path;
  std::chrono::steady_clock::time_point start;
};

enum class Verdict { passed, failed, died, hung };

struct Outcome {
  Verdict verdict;
  std::string first_line;  // of what the program said about it
};

double number(const std::string& text, const std::string& flag) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  HEDDLE_CHECK(!text.empty() && *end == 0 && value > 0 && value < 1e6, "heddle-mutate", flag, " takes a positive number, not '", text, "'");
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
    HEDDLE_CHECK(takes_value && i + 1 < argc, "heddle-mutate", takes_value ? "a value is missing after " : "unknown option ", flag, "\n", kUsage);
    const std::string value = argv[++i];
    if (flag == "--only") options.only.push_back(value);
    if (flag == "--ignore") options.ignore.push_back(value);
    if (flag == "--timeout") options.timeout = number(value, flag);
    if (flag == "--jobs") options.jobs = static_cast<int>(number(value, flag));
  }
  for (++i; i < argc; ++i) options.command.emplace_back(argv[i]);
  HEDDLE_CHECK(!options.command.empty(), "heddle-mutate", "no program to run\n", kUsage);
  return options;
}

std::string temporary_file() {
  const char* folder = std::getenv("TMPDIR");
  std::string path = std::string(folder != nullptr && *folder != 0 ? folder : "/tmp") + "/heddle-mutate-XXXXXX";
  const int fd = mkstemp(path.data());
  HEDDLE_CHECK(fd >= 0, "heddle-mutate", "cannot make a temporary file ", path);
  close(fd);
  return path;
}

// Starts the program with one more environment variable; its output goes to a file.
Child start(const Options& options, const std::string& variable, const std::string& mutation) {
  Child child;
  child.mutation = mutation;
  child.output_path = temporary_file();
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
  posix_spawn_file_actions_addopen(&actions, 1, child.output_path.c_str(), O_WRONLY | O_TRUNC, 0600);
  posix_spawn_file_actions_adddup2(&actions, 1, 2);
  const int error =
      posix_spawnp(&child.pid, options.command[0].c_str(), &actions, nullptr, pointers(options.command).data(), pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  HEDDLE_CHECK(error == 0, "heddle-mutate", "cannot start ", options.command[0], ": ", std::strerror(error));
  child.start = std::chrono::steady_clock::now();
  return child;
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

bool finished(Child& child, double timeout, Outcome& outcome) {
  int status = 0;
  const pid_t done = waitpid(child.pid, &status, WNOHANG);
  if (done == 0) {
    const std::chrono::duration<double> age = std::chrono::steady_clock::now() - child.start;
    if (age.count() < timeout) return false;
    kill(child.pid, SIGKILL);
    waitpid(child.pid, &status, 0);
    outcome = {Verdict::hung, ""};
  } else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    outcome = {Verdict::passed, ""};
  } else {
    outcome = {WIFEXITED(status) ? Verdict::failed : Verdict::died, telling_line(child.output_path)};
  }
  unlink(child.output_path.c_str());
  return true;
}

Outcome wait_for(Child child, double timeout) {
  Outcome outcome{Verdict::passed, ""};
  while (!finished(child, timeout, outcome)) std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return outcome;
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
  const bool names_kind = rest.rfind(" drop", 0) == 0 || rest.rfind(" weaken", 0) == 0;
  return !names_kind || rest.compare(1, std::string::npos, mutation.substr(mutation.rfind(':') + 1)) == 0;
}

std::vector<std::string> find_mutations(const Options& options) {
  const std::string list_path = temporary_file();
  const Outcome outcome = wait_for(start(options, "HEDDLE_SIM_MUTATE_LIST=" + list_path, ""), options.timeout);
  HEDDLE_CHECK(outcome.verdict == Verdict::passed, "heddle-mutate", "the program fails without any mutation: ", outcome.first_line);
  std::vector<std::string> mutations;
  std::ifstream in(list_path);
  for (std::string line; std::getline(in, line);)
    if ((options.only.empty() || holds_one(line, options.only)) && !holds_one(line, options.ignore) && !ignored_in_source(line))
      mutations.push_back(line);
  unlink(list_path.c_str());
  HEDDLE_CHECK(!mutations.empty(), "heddle-mutate", "no synchronisation was executed: is it a test of the simulated machine, and does --only match?");
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

int run(const Options& options) {
  if (options.help) {
    std::cout << kUsage;
    return 0;
  }
  const std::vector<std::string> mutations = find_mutations(options);
  if (options.list) {
    for (const std::string& mutation : mutations) std::cout << mutation << '\n';
    return 0;
  }
  std::vector<Child> running;
  size_t next = 0;
  int survivors = 0;
  while (next < mutations.size() || !running.empty()) {
    while (next < mutations.size() && running.size() < static_cast<size_t>(options.jobs)) {
      running.push_back(start(options, "HEDDLE_SIM_MUTATE=" + mutations[next], mutations[next]));
      ++next;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    for (size_t i = 0; i < running.size();) {
      Outcome outcome{Verdict::passed, ""};
      if (!finished(running[i], options.timeout, outcome)) {
        ++i;
        continue;
      }
      survivors += outcome.verdict == Verdict::passed ? 1 : 0;
      std::cout << name_of(outcome.verdict) << ' ' << running[i].mutation << "  " << outcome.first_line.substr(0, 160) << std::endl;
      running.erase(running.begin() + static_cast<std::ptrdiff_t>(i));
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
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 2;
  }
}
