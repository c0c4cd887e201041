// Touches of memory that this machine's memory protection refused, in simulated threads and of device memory by the host: named, then fatal.
#include <signal.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/sim/core/machine_internal.h"
#include "kernels/sim/cudart/memory.h"

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

// "thread (3,0,0) of block (1,0,0)" where simulated code ran, else "".
std::string simulated_thread() {
  return current_thread == nullptr ? "" : concat(thread_text(*current_thread), ": ");
}

bool below_its_stack(const void* address) {
  const Stack* stack = current_thread == nullptr ? nullptr : self().stack;
  constexpr ptrdiff_t kBelow = 1 << 20;  // one large frame may step over the guard page
  return stack != nullptr && address < stack->base && stack->base - static_cast<const std::byte*>(address) < kBelow;
}

std::string report(const void* address, void* context) {
  const char* const kernel = running.load();
  if (memory().is_device(address)) {
    std::string text = concat("[cuda] ", kernel ? "kernel " : "host ", kernel ? kernel : "", kernel ? ": " : "", simulated_thread(), verb(context),
                              kernel ? " outside an allocation: " : " of device memory: ", address, " is ", memory().describe(address));
    Allocation allocation;
    if (memory().find_device(address, allocation) && allocation.life == Life::freed) text += ", freed by " + allocation.released.text();
    return text;
  }
  if (current_thread == nullptr) return "";
  std::string text = concat("[sim] kernel ", kernel_name(current_worker->group.launch->kernel), ": ", simulated_thread());
  if (below_its_stack(address))
    return concat(text, "its stack of ", self().stack->size / 1024, " KiB is used up, by large local variables or recursion: ", verb(context), " of ",
                  address);
  return concat(text, verb(context), " of ", address, ", where no memory is (or not for this access)");
}

// Runs on a stack of its own, since that of the faulting code may be what is used up. It uses locks and the heap, which a signal handler may not in
// general: the fault is synchronous, in code that holds neither of ours, and the process ends right after.
void handle(int signal, siginfo_t* info, void* context) {
  struct sigaction& previous = signal == SIGSEGV ? previous_segv : previous_bus;
  std::string text = report(info->si_addr, context);
  if (!text.empty()) {
    text += concat("; ", call_site("access", static_cast<char*>(program_counter(context)) + 1).text(), "\n");
    for (size_t done = 0; done < text.size();) {
      const ssize_t n = write(STDERR_FILENO, text.data() + done, text.size() - done);
      if (n <= 0) break;
      done += static_cast<size_t>(n);
    }
  }
  // What was there before decides; the access is repeated when this returns.
  sigaction(signal, &previous, nullptr);
}

// An OS thread's stack for signals, unless something else (a sanitizer, a test framework) has given it one.
class SignalStack {
 public:
  SignalStack() {
    stack_t now = {};
    if (sigaltstack(nullptr, &now) != 0 || (now.ss_flags & SS_DISABLE) == 0) return;
    memory_.resize(256 * 1024);
    stack_t mine = {};
    mine.ss_sp = memory_.data();
    mine.ss_size = memory_.size();
    sigaltstack(&mine, nullptr);
  }
  ~SignalStack() {
    if (memory_.empty()) return;
    stack_t none = {};
    none.ss_flags = SS_DISABLE;
    sigaltstack(&none, nullptr);
  }
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;

 private:
  std::vector<std::byte> memory_;
};

}  // namespace

void set_running(const char* what) {
  running.store(what);
}

// Again and again: test frameworks put their own handlers in place for a while.
void install_fault_handler() {
  static thread_local SignalStack stack;
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
