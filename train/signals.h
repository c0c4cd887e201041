// Requests to stop: signals and the time limit, polled between micro-steps, in evaluation and while a checkpoint is written.
#pragma once

#include <csignal>
#include <cstdint>
#include <string_view>

namespace heddle {

enum class StopReason : uint8_t { none, terminate, interrupt, user1, time_limit };

struct StopRequest {
  StopReason reason = StopReason::none;
  explicit operator bool() const { return reason != StopReason::none; }
};

// "SIGTERM", "SIGINT", "SIGUSR1", "--time-limit" or "".
std::string_view name_of(StopReason reason);

// While one lives, SIGTERM, SIGINT and SIGUSR1 only set a flag: the caller saves and ends with exit code 75. A second signal ends the process at
// once with 128 + its number; only a SIGUSR1 within a second of the first is taken for the same one, since Slurm and mpirun may both deliver it.
// SIGPIPE and SIGXFSZ are ignored: a closed console must not end a run, and a file-size limit (ulimit -f) is an error of the save that meets it
// (EFBIG), not the end of everything. The destructor restores what was there. One at a time in a process; of a job's ranks one `speaks`, that is,
// says on standard error that it was asked.
class StopSignals {
 public:
  // time_limit: seconds from now on the monotonic clock; 0: none. Throws Error when another one lives.
  explicit StopSignals(double time_limit = 0, bool speaks = true);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // This rank's view; a job agrees on it with one all_reduce of the reason (the largest wins). A few nanoseconds.
  StopRequest poll() const;

  // Seconds until the time limit; infinite without one. For deciding whether one more step or save fits.
  double remaining() const;

 private:
  double deadline_ = 0;
  struct sigaction before_[5];
};

}  // namespace heddle
