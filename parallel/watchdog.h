// The watchdog: a job that has come to a halt says which rank holds it up, and ends with 86 instead of waiting for ever.
//
// A thread of its own on each rank tells the others twice a second, over a Control of its own, what the training thread is at (pulse.h). Two things
// are late: a rank that gives no sign of life for `limit` seconds (stopped, its machine gone), and a training thread that makes no progress for
// `limit` times its phase's patience although its rank answers. Rank 0 reports, and when it is silent itself, the others do: each rank's phase, step
// and last collective, on standard error; then all ranks end. It needs nothing from the training thread, which may wait in a collective.
//
// Time counts only while the watcher itself runs: a job that was stopped as a whole (Ctrl-Z, a suspended laptop, a debugger) and goes on is not late.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/control.h"

namespace heddle {

struct WatchdogOptions {
  double limit = kHangLimit;  // seconds; 0: no watchdog
  // Slow machines: the limit on progress is ten times the longest that was ever waited for, where that is more. Off where somebody stated a limit.
  bool stretch = true;
  std::function<void(const std::string&)> report;  // absent: standard error
  std::function<void()> end;                       // absent: every rank ends with 86
};

class Watchdog {
 public:
  // Collective.
  explicit Watchdog(Control& world, WatchdogOptions options = {});
  // Collective in its effect: returns once every rank has come here; until then this one goes on answering, and reports who does not come. While an
  // exception passes, it returns at once and the thread stays until all ranks have come: one that fails alone is to say so and to end the others
  // (abort_world), and is alive until then.
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

 private:
  struct Impl;
  std::shared_ptr<Impl> impl_;
  int exceptions_ = 0;
};

// Before MPI is closed: those whose ranks all failed alike end by themselves. A second at most.
void let_watchdogs_end();

// For a call that only other ranks can end and that no one can leave, before there is a watchdog and after (MPI_Init, MPI_Finalize): unless this goes
// away within `seconds`, the process says so, names what of its siblings on this machine is stopped, and ends with 86. 0: never.
class CallGuard {
 public:
  CallGuard(std::string call, double seconds);
  ~CallGuard();
  CallGuard(const CallGuard&) = delete;
  CallGuard& operator=(const CallGuard&) = delete;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace heddle
