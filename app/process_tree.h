// The processes below this one, as Linux's /proc tells of them (proc(5)).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace heddle::app {

struct Process {
  pid_t id = 0, parent = 0;
  char state = '?';    // 'T': stopped
  uint64_t start = 0;  // tells apart processes that have had the same id
  bool is(const Process& other) const { return id == other.id && start == other.start; }
};

// This process's children and theirs, zombies left out, and so `spared` with what is below them.
std::vector<Process> descendants(const std::vector<Process>& spared = {});

// Whether a signal would not end it: it has a handler, or waits for the signal.
bool handles(const Process& process, int signal);

// Whether a launcher has started it as a rank (or one of its ancestors).
bool is_rank(const Process& process);

}  // namespace heddle::app
