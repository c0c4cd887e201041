// Requests to stop: signals and the time limit, polled between micro-steps, in evaluation and while a checkpoint is written.
#pragma once

#include <csignal>
#include <cstdint>
#include <string_view>

namespace heddle {

// Of several, the largest counts. `unreadable`: a rank's data is gone; no signal says so.
enum class StopReason : uint8_t { none, time_limit, hangup, user1, terminate, interrupt, unreadable };

struct StopRequest {
  StopReason reason = StopReason::none;
  explicit operator bool() const { return reason != StopReason::none; }
};

// "SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "--time-limit" or "".
std::string_view name_of(StopReason reason);

// While one lives, SIGTERM, SIGINT, SIGHUP and SIGUSR1 only set a flag: the caller saves and ends. SIGHUP and SIGINT that were ignored at the start
// (nohup; a shell's background job) stay ignored. A second signal ends the process at once with 128 + its number, with two exceptions. Of
// SIGUSR1 and SIGTERM one that comes within a second of the other, and a repeated SIGUSR1, is taken for the same request: Slurm, mpirun and
// `heddle supervise` turn the one into the other and may all deliver it. And a SIGHUP is
// no impatient person: kernel, shell and init each send one when a terminal or a session ends, next to SIGTERM, so it neither is a second signal nor
// makes one of what follows. SIGPIPE and SIGXFSZ are ignored: a closed console must not end a run, and a file-size limit (ulimit -f) is an error of
// the save that meets it (EFBIG), not the end of everything. The destructor restores what was there. One at a time in a process; of a job's ranks one
// `speaks`, that is, says on standard error that it was asked.
class StopSignals {
 public:
  // time_limit: seconds from now on the monotonic clock; 0: none. Throws Error when another one lives.
  explicit StopSignals(double time_limit = 0, bool speaks = true);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // This rank's view, on which a job has to agree. A few nanoseconds.
  StopRequest poll() const;

  // Seconds until the time limit; infinite without one. For deciding whether one more step or save fits.
  double remaining() const;

 private:
  double deadline_ = 0;
  struct sigaction before_[6];
  stack_t stack_before_{};
};

}  // namespace heddle
