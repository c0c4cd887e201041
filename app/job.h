// One start of a supervised command: a process tree that ends as a whole.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <optional>
#include <string>
#include <vector>

namespace heddle::app {

// While one lives the signals that ask to stop, unless they were ignored at the start, and those that tell of children, wait to be taken (take). Of
// one process, made before its threads.
class HeldSignals {
 public:
  HeldSignals();
  ~HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

  // The next one within `seconds`: SIGTERM, SIGINT, SIGHUP, SIGUSR1 or SIGCHLD.
  std::optional<int> take(double seconds) const;
  const sigset_t& before() const { return before_; }

 private:
  sigset_t held_{}, before_{};
};

// The command as a process group of its own, without standard input, so that what a terminal sends comes here alone. It gets SIGTERM should this
// process die. What it leaves behind becomes this process's own (PR_SET_CHILD_SUBREAPER): a launcher that is killed orphans its ranks.
class Job {
 public:
  // Error(usage) when the command cannot be started.
  Job(const std::vector<std::string>& command, const HeldSignals& signals);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void signal(int number) const;
  // The exit code, 128 + n for death by signal n, once it has ended.
  std::optional<int> poll();
  // Whether it has processes of its own.
  bool has_children() const;
  // Kills whatever of the tree is left. The number of processes; negative: as many would not go within `seconds`.
  int end_all(double seconds);

 private:
  pid_t pid_ = 0;
  std::optional<int> code_;
};

}  // namespace heddle::app
