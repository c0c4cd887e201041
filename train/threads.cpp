#include "train/threads.h"

#include <omp.h>
#include <pthread.h>

#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <vector>

#include "kernels/api/check.h"

namespace heddle {
namespace {

constexpr int64_t kMost = 4096;  // as --threads accepts
constexpr int64_t kOthers = 4;   // threads a run has beside its kernels': prefetch, checkpoints, what MPI starts

// Of a kernel's thread, as OMP_STACKSIZE has it: "512M", without a letter KiB. 0: the system's own, also where the text says nothing.
size_t stack_bytes() {
  const char* const text = std::getenv("OMP_STACKSIZE");
  if (text == nullptr) return 0;
  char* end = nullptr;
  const unsigned long long number = std::strtoull(text, &end, 10);
  int shift = 10;
  switch (*end) {
    case 'B':
    case 'b': shift = 0; break;
    case 'M':
    case 'm': shift = 20; break;
    case 'G':
    case 'g': shift = 30; break;
    default: break;
  }
  return number >> (63 - shift) != 0 ? SIZE_MAX : static_cast<size_t>(number) << shift;
}

struct Gate {
  std::mutex mutex;
  std::condition_variable changed;
  bool open = false;
  static void* wait(void* gate) {
    auto& g = *static_cast<Gate*>(gate);
    std::unique_lock lock(g.mutex);
    g.changed.wait(lock, [&] { return g.open; });
    return nullptr;
  }
};

// How many of so many threads this process can have at once: the only way to know what limits on processes and memory leave. The first `kernels` of
// them have stacks of `stack` bytes.
int64_t startable(int64_t wanted, int64_t kernels, size_t stack) {
  pthread_attr_t large;
  if (::pthread_attr_init(&large) != 0) return 0;
  if (stack > 0) ::pthread_attr_setstacksize(&large, stack);  // one that is too small is refused, here as in OpenMP
  Gate gate;
  std::vector<pthread_t> threads;
  threads.reserve(static_cast<size_t>(wanted));
  for (pthread_t thread; static_cast<int64_t>(threads.size()) < wanted; threads.push_back(thread)) {
    if (::pthread_create(&thread, static_cast<int64_t>(threads.size()) < kernels ? &large : nullptr, &Gate::wait, &gate) != 0) break;
  }
  {
    const std::lock_guard lock(gate.mutex);
    gate.open = true;
  }
  gate.changed.notify_all();
  for (const pthread_t thread : threads) ::pthread_join(thread, nullptr);
  ::pthread_attr_destroy(&large);
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
    const size_t stack = stack_bytes();
    const int64_t found = startable(wanted - 1 + kOthers, wanted - 1, stack) + 1 - kOthers;
    if (found < wanted) {
      fail("threads",
           concat(asked, stack > 0 ? concat(" and stacks of OMP_STACKSIZE=", std::getenv("OMP_STACKSIZE")) : "", ": this process can have about ",
                  found > 0 ? found : 1, " (limits on processes, threads or memory: ulimit -u, ulimit -v, the cgroup's pids.max); ",
                  stack > 0 ? "lower or unset OMP_STACKSIZE, or " : "", cure),
           ExitCode::usage);
    }
  }
  if (threads > 0) omp_set_num_threads(static_cast<int>(threads));
}

}  // namespace heddle
