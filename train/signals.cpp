#include "train/signals.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <ctime>
#include <limits>

#include "kernels/api/check.h"

namespace heddle {
namespace {

constexpr std::array<int, 4> kStopping = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};
constexpr std::array<int, 2> kIgnored = {SIGPIPE, SIGXFSZ};

// Written in a signal handler: lock-free atomics only.
std::atomic<int> first_signal{0};
std::atomic<int64_t> first_time{0};  // nanoseconds, monotonic
std::atomic<bool> installed{false}, silent{false};
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free && std::atomic<int64_t>::is_always_lock_free);

int64_t monotonic_nanoseconds() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);  // async-signal-safe (POSIX.1-2008)
  return static_cast<int64_t>(t.tv_sec) * 1'000'000'000 + t.tv_nsec;
}

template <size_t N>
void say(const char (&text)[N]) {
  if (silent) return;
  [[maybe_unused]] const ssize_t ignored = ::write(STDERR_FILENO, text, N - 1);
}

extern "C" void heddle_on_stop_signal(int signal) {
  const int saved_errno = errno;
  int none = 0;
  const int64_t now = monotonic_nanoseconds();
  if (first_signal.compare_exchange_strong(none, signal)) {
    first_time = now;
    say("heddle: asked to stop: finishing the step and saving; a second signal ends at once\n");
  } else if (signal == SIGHUP) {
    // comes along with others when a session ends
  } else if (none == SIGHUP && first_signal.compare_exchange_strong(none, signal)) {
    first_time = now;
  } else if ((signal == SIGUSR1 || (signal == SIGTERM && none == SIGUSR1)) && (first_time == 0 || now - first_time < 1'000'000'000)) {
    // the same request, delivered along two ways
  } else {
    say("heddle: second signal: ending now without saving\n");
    ::_exit(128 + signal);
  }
  errno = saved_errno;
}

}  // namespace

std::string_view name_of(StopReason reason) {
  switch (reason) {
    case StopReason::none: return "";
    case StopReason::terminate: return "SIGTERM";
    case StopReason::interrupt: return "SIGINT";
    case StopReason::hangup: return "SIGHUP";
    case StopReason::user1: return "SIGUSR1";
    case StopReason::time_limit: return "--time-limit";
    case StopReason::unreadable: return "unreadable data";
  }
  return "";
}

StopSignals::StopSignals(double time_limit, bool speaks) {
  HEDDLE_CHECK(!installed.exchange(true), "signals", "two StopSignals at a time");
  first_signal = 0;
  first_time = 0;
  silent = !speaks;
  deadline_ = time_limit > 0 ? static_cast<double>(monotonic_nanoseconds()) * 1e-9 + time_limit : 0;
  // On a stack of its own: oneDNN's generated products keep data below the stack pointer, further than the 128 bytes that the system leaves alone
  // there, and went on with overwritten addresses. Of all threads the system asks the first one, which is this.
  static std::array<char, size_t{1} << 16> handler_stack;
  stack_t own{};
  own.ss_sp = handler_stack.data(), own.ss_size = handler_stack.size();
  sigaltstack(&own, &stack_before_);
  struct sigaction action {};
  action.sa_handler = heddle_on_stop_signal;
  action.sa_flags = SA_ONSTACK | SA_RESTART;  // reads and writes of a checkpoint must not see EINTR from us
  sigemptyset(&action.sa_mask);
  for (const int signal : kStopping) sigaddset(&action.sa_mask, signal);
  for (size_t i = 0; i < kStopping.size(); ++i) {
    sigaction(kStopping[i], nullptr, &before_[i]);
    const bool may_be_ignored = kStopping[i] == SIGHUP || kStopping[i] == SIGINT;
    if (!may_be_ignored || before_[i].sa_handler != SIG_IGN) sigaction(kStopping[i], &action, nullptr);
  }
  struct sigaction ignore {};
  ignore.sa_handler = SIG_IGN;
  sigemptyset(&ignore.sa_mask);
  for (size_t i = 0; i < kIgnored.size(); ++i) sigaction(kIgnored[i], &ignore, &before_[kStopping.size() + i]);
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kStopping.size(); ++i) sigaction(kStopping[i], &before_[i], nullptr);
  for (size_t i = 0; i < kIgnored.size(); ++i) sigaction(kIgnored[i], &before_[kStopping.size() + i], nullptr);
  sigaltstack(&stack_before_, nullptr);
  installed = false;
}

StopRequest StopSignals::poll() const {
  switch (first_signal.load(std::memory_order_relaxed)) {
    case SIGTERM: return {StopReason::terminate};
    case SIGINT: return {StopReason::interrupt};
    case SIGHUP: return {StopReason::hangup};
    case SIGUSR1: return {StopReason::user1};
    default: break;
  }
  if (deadline_ > 0 && remaining() <= 0) return {StopReason::time_limit};
  return {};
}

double StopSignals::remaining() const {
  if (deadline_ <= 0) return std::numeric_limits<double>::infinity();
  return deadline_ - static_cast<double>(monotonic_nanoseconds()) * 1e-9;
}

}  // namespace heddle
