#include "train/threads.h"

#include <omp.h>

#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "kernels/api/check.h"

namespace heddle {
namespace {

constexpr int64_t kMost = 4096;  // as --threads accepts
constexpr int64_t kOthers = 4;   // threads a run has beside its kernels': prefetch, checkpoints, what MPI starts

// How many of so many threads this process can have at once: the only way to know what limits on processes and memory leave.
int64_t startable(int64_t wanted) {
  std::mutex mutex;
  std::condition_variable changed;
  bool leave = false;
  std::vector<std::thread> threads;
  threads.reserve(static_cast<size_t>(wanted));
  try {
    while (static_cast<int64_t>(threads.size()) < wanted) {
      threads.emplace_back([&] {
        std::unique_lock lock(mutex);
        changed.wait(lock, [&] { return leave; });
      });
    }
  } catch (const std::system_error&) {
  }
  {
    const std::lock_guard lock(mutex);
    leave = true;
  }
  changed.notify_all();
  for (std::thread& t : threads) t.join();
  return static_cast<int64_t>(threads.size());
}

}  // namespace

void use_threads(int64_t threads) {
  const int64_t wanted = threads > 0 ? threads : omp_get_max_threads();
  const char* const variable = std::getenv("OMP_NUM_THREADS");
  const std::string asked = threads > 0 ? concat("--threads ", threads)
                            : variable  ? concat("OMP_NUM_THREADS=", variable)
                                        : concat("one thread for each of ", wanted, " CPUs");
  const std::string cure = threads > 0 ? "lower it" : variable ? "lower or unset it, or give --threads" : "give --threads";
  if (wanted > kMost) fail("threads", concat(asked, ": at most ", kMost, " are accepted; ", cure), ExitCode::usage);
  if (wanted > 1) {
    const int64_t found = startable(wanted - 1 + kOthers) + 1 - kOthers;
    if (found < wanted) {
      fail("threads",
           concat(asked, ": this process can have about ", found > 0 ? found : 1,
                  " (limits on processes, threads or memory: ulimit -u, ulimit -v, the cgroup's pids.max); ", cure),
           ExitCode::usage);
    }
  }
  if (threads > 0) omp_set_num_threads(static_cast<int>(threads));
}

}  // namespace heddle
