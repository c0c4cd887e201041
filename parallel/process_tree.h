// The processes of this machine, as Linux's /proc tells of them (proc(5)).
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace heddle {

struct Process {
  pid_t id = 0, parent = 0;
  char state = '?';    // 'T', 't': stopped
  uint64_t start = 0;  // tells apart processes that have had the same id
  bool is(const Process& other) const { return id == other.id && start == other.start; }
};

std::vector<Process> processes();  // zombies left out

// This process's children and theirs, zombies left out, and so `spared` with what is below them.
std::vector<Process> descendants(const std::vector<Process>& spared = {});

// Whether a signal would not end it: it has a handler, or waits for the signal.
bool handles(const Process& process, int signal);

// The number that a launcher has given it, or one of its ancestors, as a rank; nullopt: none has.
std::optional<int> rank_of(const Process& process);

}  // namespace heddle
