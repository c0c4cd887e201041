// What cuda_mutants.py writes into copies of kernels/cuda: each fault is in the program, and is off. Constant expressions keep what they have.
//
//   HEDDLE_MUTANTS_REACHED=path  the run writes at its end which faults it has come by, one number a line
//   HEDDLE_MUTANTS_TRY=path      "SECONDS JOBS n n n ...": where the run comes by one of these faults for the first time the process forks, and
//                                the child goes on with the fault; what came before is not run again for each. JOBS at a time, each SECONDS of
//                                processor time at most
//   HEDDLE_MUTANTS_VERDICTS=path where a line is added for each: n and its exit code, 124 when it took too long
//
// The runs are of one thread (HEDDLE_SIM_THREADS=1, OMP_NUM_THREADS=1): a fork has only the thread that called it.
#pragma once

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <type_traits>

#if defined(__clang__)
#define HEDDLE_MUTANTS_UNCHECKED __attribute__((no_sanitize("thread")))  // not a kernel's accesses
#else
#define HEDDLE_MUTANTS_UNCHECKED __attribute__((no_sanitize_thread))
#endif

namespace heddle::mutants {

inline constexpr int kMost = 1 << 16;

class Runs {
 public:
  HEDDLE_MUTANTS_UNCHECKED bool on(int n) {
    if (seen_[static_cast<size_t>(n)] == 0) first_time(n);
    return n == chosen_;
  }

 private:
  static FILE* open(const char* variable, const char* how) {
    const char* path = std::getenv(variable);
    if (path == nullptr) return nullptr;
    FILE* const file = std::fopen(path, how);
    if (file == nullptr) std::perror(path), std::_Exit(125);
    return file;
  }

 public:
  HEDDLE_MUTANTS_UNCHECKED Runs() {
    if (FILE* const file = open("HEDDLE_MUTANTS_TRY", "r"); file != nullptr) {
      if (std::fscanf(file, "%d %d", &seconds_, &jobs_) != 2) std::_Exit(125);
      for (int n = 0; std::fscanf(file, "%d", &n) == 1;) wanted_[static_cast<size_t>(n)] = 1;
      std::fclose(file);
      verdicts_ = open("HEDDLE_MUTANTS_VERDICTS", "a");
    }
    reached_ = open("HEDDLE_MUTANTS_REACHED", "w");
  }
  HEDDLE_MUTANTS_UNCHECKED ~Runs() {
    if (child_) return;
    while (!running_.empty()) wait_for_one();
    if (reached_ == nullptr) return;
    for (size_t n = 0; n < kMost; ++n)
      if (seen_[n] != 0) std::fprintf(reached_, "%zu\n", n);
    std::fclose(reached_);
  }

 private:
  HEDDLE_MUTANTS_UNCHECKED __attribute__((noinline)) void first_time(int n) {
    seen_[static_cast<size_t>(n)] = 1;
    if (child_) return;
    if (reached_ != nullptr && !forked_) {  // as faults will be tried, to see that a fork alone fails nothing
      forked_ = true;
      if (const pid_t other = fork(); other > 0) {
        int status = 0;
        while (waitpid(other, &status, 0) != other) {
        }
        std::_Exit(code(status));
      }
    }
    if (wanted_[static_cast<size_t>(n)] == 0) return;
    while (static_cast<int>(running_.size()) >= jobs_) wait_for_one();
    const pid_t made = fork();
    if (made < 0) std::perror("fork"), std::_Exit(125);
    if (made > 0) {
      running_[made] = n;
      return;
    }
    child_ = true;
    chosen_ = n;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int nowhere = ::open("/dev/null", O_WRONLY);
    dup2(nowhere, 1);
    dup2(nowhere, 2);
    const itimerval busy{.it_interval = {}, .it_value = {.tv_sec = seconds_, .tv_usec = 0}};
    setitimer(ITIMER_PROF, &busy, nullptr);
    alarm(static_cast<unsigned>(20 * seconds_));  // of time in all, where it sleeps
  }
  void wait_for_one() {
    int status = 0;
    const pid_t done = waitpid(-1, &status, 0);
    const auto at = running_.find(done);
    if (at == running_.end()) return;
    std::fprintf(verdicts_, "%d %d\n", at->second, code(status));
    std::fflush(verdicts_);
    running_.erase(at);
  }
  static int code(int status) {
    if (WIFEXITED(status)) return WEXITSTATUS(status);
    return WTERMSIG(status) == SIGPROF || WTERMSIG(status) == SIGALRM ? 124 : 128 + WTERMSIG(status);
  }

  std::array<unsigned char, kMost> seen_ = {}, wanted_ = {};
  int chosen_ = 0, seconds_ = 0, jobs_ = 1;
  bool child_ = false, forked_ = false;
  FILE *reached_ = nullptr, *verdicts_ = nullptr;
  std::map<pid_t, int> running_;  // -> fault
};
inline Runs runs;

constexpr bool on(int n) {
  return !std::is_constant_evaluated() && runs.on(n);
}

template <class T>
constexpr T other(int n, T original, T fault) {
  return on(n) ? fault : original;
}
template <class A, class B>
constexpr A other(int n, A original, B fault) {
  return on(n) ? static_cast<A>(fault) : original;
}

// A number, a pointer or the like, moved by one; anything else stays.
template <class T>
constexpr T moved(int n, T x, int by) {
  if constexpr (std::is_same_v<T, bool>) {
    return x;
  } else if constexpr (std::is_arithmetic_v<T>) {
    return on(n) ? static_cast<T>(x + static_cast<T>(by)) : x;
  } else {
    return x;
  }
}

template <class T>
constexpr T negated(int n, T x) {
  if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
    return on(n) ? static_cast<T>(T{} - x) : x;
  } else {
    return x;
  }
}

// A factor that is left out.
template <class T>
constexpr T one(int n, T x) {
  if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>) {
    return on(n) ? T{1} : x;
  } else {
    return x;
  }
}

// The first of two things, or where the fault is on the second: swapped arguments are two of these.
template <class A, class B>
constexpr decltype(auto) first(int n, A&& a, [[maybe_unused]] B&& b) {
  if constexpr (std::is_same_v<A, B>) {
    return on(n) ? static_cast<B&&>(b) : static_cast<A&&>(a);
  } else {
    return static_cast<A&&>(a);
  }
}

}  // namespace heddle::mutants
