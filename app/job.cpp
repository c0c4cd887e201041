#include "app/job.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <ctime>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/api/check.h"

namespace heddle::app {
namespace {

constexpr int kStopping[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};

int code_of(int status) {
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace

HeldSignals::HeldSignals() {
  sigemptyset(&held_);
  for (const int signal : kStopping) {
    struct sigaction action {};
    sigaction(signal, nullptr, &action);
    if (action.sa_handler != SIG_IGN) sigaddset(&held_, signal);  // nohup; a shell's background job
  }
  sigaddset(&held_, SIGCHLD);
  sigprocmask(SIG_BLOCK, &held_, &before_);
  std::signal(SIGCHLD, SIG_DFL);  // who ignores it, as some starters do, hears of no child
  pipe_before_ = std::signal(SIGPIPE, SIG_IGN);
}
HeldSignals::~HeldSignals() {
  std::signal(SIGPIPE, pipe_before_);
  sigprocmask(SIG_SETMASK, &before_, nullptr);
}

std::optional<int> HeldSignals::take(double seconds) const {
  timespec wait{};
  wait.tv_sec = static_cast<time_t>(seconds);
  wait.tv_nsec = static_cast<long>((seconds - std::floor(seconds)) * 1e9);
  const int signal = sigtimedwait(&held_, nullptr, &wait);
  return signal > 0 ? std::optional(signal) : std::nullopt;
}

Job::Job(const std::vector<std::string>& command, const HeldSignals& signals, std::vector<Process> spared) : spared_(std::move(spared)) {
  ::prctl(PR_SET_CHILD_SUBREAPER, 1);
  std::vector<char*> argv;
  for (const std::string& word : command) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  int failed[2];  // what exec says, should it return
  if (::pipe2(failed, O_CLOEXEC) != 0) fail("supervise", concat("no pipe: ", std::generic_category().message(errno)));
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    ::setpgid(0, 0);
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(1);
    const int nothing = ::open("/dev/null", O_RDONLY);
    if (nothing >= 0) ::dup2(nothing, STDIN_FILENO);
    std::signal(SIGPIPE, signals.pipe_before());
    std::signal(SIGXFSZ, SIG_DFL);  // this program ignores it
    sigprocmask(SIG_SETMASK, &signals.before(), nullptr);
    ::execvp(argv[0], argv.data());
    const int error = errno;
    [[maybe_unused]] const ssize_t told = ::write(failed[1], &error, sizeof error);
    ::_exit(127);
  }
  const int fork_error = errno;
  ::close(failed[1]);
  int error = 0;
  const bool did_fail = pid_ < 0 || ::read(failed[0], &error, sizeof error) == sizeof error;
  ::close(failed[0]);
  if (!did_fail) return;
  if (pid_ > 0) ::waitpid(std::exchange(pid_, 0), nullptr, 0);
  fail("supervise", concat("cannot start ", command.front(), ": ", std::generic_category().message(pid_ < 0 ? fork_error : error)), ExitCode::usage);
}

Job::~Job() {
  end_all(10);
}

void Job::signal(int number) const {
  if (!code_) ::kill(pid_, number);
}

bool Job::ask_to_stop() const {
  // Looked at twice: whoever starts a program blocks all signals for a moment.
  std::vector<Process> handling = tree();
  for (int look = 0; look < 2; ++look) {
    std::erase_if(handling, [](const Process& p) { return !handles(p, SIGUSR1); });
    if (look == 0) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
  bool asked = false;
  for (const Process& p : handling) asked = ::kill(p.id, SIGUSR1) == 0 || asked;
  if (!asked) signal(SIGTERM);
  return asked;
}
bool Job::is_stopping() const {
  const std::vector<Process> all = tree();
  return std::any_of(all.begin(), all.end(), [](const Process& p) { return handles(p, SIGUSR1); });
}

std::optional<int> Job::poll() {
  int status = 0;
  for (pid_t ended; (ended = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (ended == pid_) code_ = code_of(status);
  }
  return code_;
}

int Job::end_all(double seconds) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<pid_t> killed;
  for (;;) {
    poll();
    const std::vector<Process> left = tree();
    if (left.empty()) return static_cast<int>(killed.size());
    if (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() > seconds) return -static_cast<int>(left.size());
    for (const Process& p : left) {
      ::kill(p.id, SIGKILL);
      if (std::find(killed.begin(), killed.end(), p.id) == killed.end()) killed.push_back(p.id);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace heddle::app
