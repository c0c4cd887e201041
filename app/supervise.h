// `heddle supervise`: a job that is started again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "app/arguments.h"

namespace heddle::app {

struct SuperviseOptions {
  std::string run;        // the run directory; "": what the command's flags say
  std::string incidents;  // "": incidents.jsonl in it
  int64_t max_restarts = 5;
  double backoff = 2, most_backoff = 300;  // seconds
  bool requeue = false;
  std::vector<std::string> command;
};

// False when --help was printed. Error(usage).
bool parse_supervise(Args args, SuperviseOptions& options);

// What is to be done about the end of a start.
struct Verdict {
  bool restart = false;
  bool counts = true;  // against the budget
  int code = 0;        // what the supervisor ends with otherwise
  bool ours = true;    // false: the run is another job's
  std::string why;
};
// How a start ended.
struct Ending {
  int code = 0;                 // 128 + n: signal n
  int asked = 0;                // the signal that asked the supervisor to stop; 0: none
  bool restarted = false;       // it was not the first start
  bool has_progress = false;    // some start of this supervisor has left a newer checkpoint
  bool is_newer = false;        // this one has
  bool has_checkpoint = false;  // there is one
};
Verdict judge(const Ending& ending, bool requeue);

// "killed by SIGKILL", "a rank hung"
std::string meaning_of(int code);

}  // namespace heddle::app
