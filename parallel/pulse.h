// What this process is at: written by the training thread in nanoseconds, read by the watchdog's (watchdog.h). One of a process: it computes nothing
// and decides nothing, it is what a report says.
#pragma once

#include <cstdint>
#include <string>

namespace heddle {

// A part of a run, and how much longer than a step it may go on without a sign of progress.
struct Phase {
  const char* name;
  double patience = 1;
};
namespace phase {
inline constexpr Phase kStartUp{"start-up", 3};  // reads and hashes whole files
inline constexpr Phase kFirstStep{"first step", 3};
inline constexpr Phase kData{"data"};
inline constexpr Phase kStep{"step"};
inline constexpr Phase kEval{"eval"};
inline constexpr Phase kSample{"sample"};
inline constexpr Phase kSave{"save", 3};  // waits for the disk
inline constexpr Phase kEnd{"end"};
}  // namespace phase

struct Pulse {
  const Phase* phase = &phase::kStartUp;
  uint64_t step = 0;            // the newest that is done
  uint64_t marks = 0;           // of progress
  uint64_t collectives = 0;     // begun by the training thread
  const char* collective = "";  // the newest of them
  bool waiting = false;         // in it
};
Pulse pulse();

// Progress: a phase begins, or goes on.
void enter(const Phase& phase, uint64_t step);
void enter(const Phase& phase);
void mark_progress();

// What else a report that this job stands still is to say, whole lines; from any thread, each time in place of what was there.
void note_late(std::string lines);
std::string late_note();

// A collective begins; `op` lives for ever.
void note_collective(const char* op);

// While one lives this rank waits for others.
class Waiting {
 public:
  Waiting();
  ~Waiting();
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
};

}  // namespace heddle
