// One start of a supervised command: a process tree that ends as a whole.
#pragma once

#include <sys/types.h>

#include <csignal>
#include <optional>
#include <string>
#include <vector>

#include "parallel/process_tree.h"

namespace heddle::app {

// While one lives the signals that ask to stop, unless they were ignored at the start, and those that tell of children, wait to be taken (take);
// SIGPIPE is ignored: a closed console ends no job. Of one process, made before its threads.
class HeldSignals {
 public:
  HeldSignals();
  ~HeldSignals();
  HeldSignals(const HeldSignals&) = delete;
  HeldSignals& operator=(const HeldSignals&) = delete;

  // The next one within `seconds`: SIGTERM, SIGINT, SIGHUP, SIGUSR1 or SIGCHLD.
  std::optional<int> take(double seconds) const;
  const sigset_t& before() const { return before_; }
  void (*pipe_before() const)(int) { return pipe_before_; }

 private:
  sigset_t held_{}, before_{};
  void (*pipe_before_)(int) = nullptr;  // what SIGPIPE did
};

// The command as a process group of its own, without standard input, so that what a terminal sends comes here alone. It gets SIGTERM should this
// process die. What it leaves behind becomes this process's own (PR_SET_CHILD_SUBREAPER): a launcher that is killed orphans its ranks.
class Job {
 public:
  // Error(usage) when the command cannot be started. `spared`: processes below this one that are none of the job's.
  Job(const std::vector<std::string>& command, const HeldSignals& signals, std::vector<Process> spared);
  ~Job();
  Job(const Job&) = delete;
  Job& operator=(const Job&) = delete;

  void signal(int number) const;
  // The exit code, 128 + n for death by signal n, once it has ended.
  std::optional<int> poll();
  // SIGUSR1 to all of it that handles that: ranks, and launchers, which hand it on; a shell in between would die of it. False: nobody does, and the
  // command got SIGTERM.
  bool ask_to_stop() const;
  // Whether something is left that ask_to_stop() asks.
  bool is_stopping() const;
  std::vector<Process> tree() const { return descendants(spared_); }
  // Kills whatever of the tree is left. The number of processes; negative: as many would not go within `seconds`.
  int end_all(double seconds);

 private:
  pid_t pid_ = 0;
  std::optional<int> code_;
  std::vector<Process> spared_;
};

}  // namespace heddle::app
