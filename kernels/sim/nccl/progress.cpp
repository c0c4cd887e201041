// What is waited for, and communicators that do not block (ncclConfig_t::blocking = 0): their calls return ncclInProgress and are done when
// ncclCommGetAsyncError says so. Source: NCCL documentation, "Creating a communication with options", "Nonblocking Group Operation",
// ncclCommGetAsyncError.
#include <atomic>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "kernels/sim/cudart/runtime.h"
#include "kernels/sim/nccl/nccl_internal.h"

namespace heddle::sim::nccl {
namespace {

struct Job {
  std::atomic<bool> done = false, given_up = false;
  std::optional<Problem> problem;  // of the thread, once done
};
thread_local const std::atomic<bool>* given_up_here = nullptr;

// Whether MPI may be called from several threads at once; a rank alone need not have begun it.
bool threads_may_call() {
  int begun = 0, level = MPI_THREAD_SINGLE;
  MPI_Initialized(&begun);
  if (begun) MPI_Query_thread(&level);
  return level >= MPI_THREAD_MULTIPLE;
}

void run(Job& job, const std::function<void()>& work) {
  given_up_here = &job.given_up;
  try {
    work();
  } catch (const Problem& p) {
    job.problem = p;
  } catch (const std::exception& e) {
    job.problem = Problem{ncclInternalError, e.what()};
  }
  given_up_here = nullptr;
  job.done = true;
}

}  // namespace

double Deadline::seconds() {
  const char* text = std::getenv("HEDDLE_SIM_NCCL_TIMEOUT");
  if (text == nullptr) return 60;
  char* end = nullptr;
  const double seconds = std::strtod(text, &end);
  if (end == text || *end != 0 || !(seconds > 0 && seconds <= 1e6))
    refuse(ncclInvalidArgument, "HEDDLE_SIM_NCCL_TIMEOUT: '", text, "' is no number of seconds above 0, at most 1000000");
  return seconds;
}

Deadline::Deadline()
    : end_(std::chrono::steady_clock::now() +
           std::chrono::duration_cast<std::chrono::steady_clock::duration>(std::chrono::duration<double>(seconds()))) {}

void wait_for(Messages& messages, const std::string& what) {
  const Deadline deadline;
  while (!messages.done()) {
    if (is_given_up()) refuse(ncclRemoteError, what, ": aborted");
    if (deadline.passed()) {
      std::string ranks;
      for (int r : messages.missing()) ranks += concat(ranks.empty() ? "" : ", ", r);
      refuse(ncclRemoteError, what, ": rank ", ranks, " did not answer within ", Deadline::seconds(), " s (HEDDLE_SIM_NCCL_TIMEOUT)");
    }
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
}

void start_background() {
  constexpr double kIdle = 10;  // milliseconds without a call, before this thread does the host's waiting for it
  static std::once_flag once;
  std::call_once(once, [] {
    if (!threads_may_call()) return;  // then a host that waits elsewhere holds its peers up
    static std::atomic<bool> stop{false};
    static std::thread mover([] {
      cudart::Runtime& rt = cudart::runtime();
      while (!stop) {
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
        std::unique_lock lock(rt.mutex);
        while (!stop && rt.remote_pending > 0 && rt.milliseconds() - rt.last_call > kIdle && rt.advance(lock)) {
        }
      }
    });
    std::atexit([] {
      stop = true;
      mover.join();
    });
  });
}

bool is_given_up() {
  return given_up_here && *given_up_here;
}

void require_ready(const CommState& comm, const std::string& api) {
  if (comm.pending)
    refuse(ncclInvalidArgument, api, ": ", comm.name, " is used while its ", comm.pending->what,
           " is in progress; only ncclCommGetAsyncError, until it gives ncclSuccess, and ncclCommAbort are allowed");
}

ncclResult_t poll(CommState& comm) {
  if (!comm.pending) return comm.error;
  const std::shared_ptr<Pending> pending = comm.pending;  // lives on while it ends itself
  try {
    if (!pending->advance()) return ncclInProgress;
  } catch (const Problem& p) {
    comm.report = p.text;
    comm.error = p.code;
  }
  comm.pending = nullptr;
  return comm.error;
}

void in_background(CommState& comm, std::string what, std::function<void()> work, std::function<void()> finish) {
  const auto job = std::make_shared<Job>();
  if (!threads_may_call()) {
    run(*job, work);
  } else {
    std::thread([job, work = std::move(work)] { run(*job, work); }).detach();
  }
  comm.pending = std::make_shared<Pending>();
  comm.pending->what = std::move(what);
  comm.pending->advance = [job, finish = std::move(finish)] {
    if (!job->done) return false;
    if (job->problem) throw Problem(*job->problem);
    finish();
    return true;
  };
  comm.pending->give_up = [job] {
    job->given_up = true;
    // Inside MPI it may have to wait for a rank that never comes: then it is left behind.
    for (const Deadline deadline; !job->done && !deadline.passed();) std::this_thread::sleep_for(std::chrono::microseconds(100));
  };
}

void launch_later(const std::vector<CommRef>& comms, const std::string& what, std::function<void()> launch) {
  static std::atomic<int> launches{0};
  struct Later {
    int polls;
    std::function<void()> launch;
  };
  const auto later = std::make_shared<Later>(Later{launches++ % 3, std::move(launch)});
  for (const CommRef& comm : comms) {
    comm->pending = std::make_shared<Pending>();
    comm->pending->what = what;
    comm->pending->advance = [later] {
      if (later->polls-- > 0) return false;
      if (later->launch) std::exchange(later->launch, nullptr)();  // by the first of the group's communicators
      return true;
    };
  }
}

void give_up(CommState& comm) {
  if (comm.pending) comm.pending->give_up();
  comm.pending = nullptr;
}

}  // namespace heddle::sim::nccl
