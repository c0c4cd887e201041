// A touch of device memory that this machine's memory protection refused: named, then fatal.
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <utility>

#include "kernels/api/check.h"
#include "kernels/sim/cudart_memory.h"

namespace heddle::sim::cudart {
namespace {

std::atomic<const char*> running{nullptr};
struct sigaction previous_segv, previous_bus;

const char* verb([[maybe_unused]] void* context) {
#if defined(__x86_64__)
  constexpr greg_t kWrite = 2;  // page fault error code, Intel SDM volume 3, "Page-fault exception"
  return static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & kWrite ? "write" : "read";
#else
  return "access";
#endif
}

void* program_counter([[maybe_unused]] void* context) {
#if defined(__x86_64__)
  return reinterpret_cast<void*>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  return reinterpret_cast<void*>(static_cast<ucontext_t*>(context)->uc_mcontext.pc);
#else
  return nullptr;
#endif
}

// Runs on the stack of the faulting code. It uses locks and the heap, which a signal handler may not in general: the fault is synchronous, in code
// that holds neither of ours, and the process ends right after.
void handle(int signal, siginfo_t* info, void* context) {
  struct sigaction& previous = signal == SIGSEGV ? previous_segv : previous_bus;
  if (memory().is_device(info->si_addr)) {
    const char* const kernel = running.load();
    std::string text = concat("[cuda] ", kernel ? "kernel " : "host ", kernel ? kernel : "", kernel ? ": " : "", verb(context),
                              kernel ? " outside an allocation: " : " of device memory: ", info->si_addr, " is ", memory().describe(info->si_addr));
    Allocation allocation;
    if (memory().find_device(info->si_addr, allocation) && allocation.life == Life::freed) text += ", freed by " + allocation.released.text();
    text += concat("; by ", call_site("code", static_cast<char*>(program_counter(context)) + 1).text(), "\n");
    for (size_t done = 0; done < text.size();) {
      const ssize_t n = write(STDERR_FILENO, text.data() + done, text.size() - done);
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
  }
  // What was there before decides; the access is repeated when this returns.
  sigaction(signal, &previous, nullptr);
}

}  // namespace

void set_running(const char* what) {
  running.store(what);
}

// Again and again: test frameworks put their own handlers in place for a while.
void install_fault_handler() {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  struct sigaction action = {};
  action.sa_sigaction = handle;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&action.sa_mask);
  for (const auto& [signal, previous] : {std::pair{SIGSEGV, &previous_segv}, std::pair{SIGBUS, &previous_bus}}) {
    struct sigaction now = {};
    sigaction(signal, nullptr, &now);
    if (now.sa_sigaction != handle) sigaction(signal, &action, previous);
  }
}

}  // namespace heddle::sim::cudart
