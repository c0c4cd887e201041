#include "app/job.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <system_error>
#include <thread>
#include <utility>

#include "kernels/api/check.h"

namespace heddle::app {
namespace {

constexpr int kStopping[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1};

// This process's children and theirs, as far as they are no zombies.
std::vector<pid_t> descendants() {
  std::vector<std::pair<pid_t, pid_t>> all;  // (parent, process)
  std::error_code unknown;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", unknown)) {
    const std::string name = entry.path().filename().string();
    if (name.find_first_not_of("0123456789") != std::string::npos) continue;
    std::string stat;
    std::ifstream in(entry.path() / "stat");
    std::getline(in, stat);
    const size_t end = stat.rfind(") ");  // "pid (name) state parent ..."
    if (end == std::string::npos || end + 4 >= stat.size() || stat[end + 2] == 'Z') continue;
    all.emplace_back(std::atoi(stat.c_str() + end + 4), std::atoi(name.c_str()));
  }
  std::vector<pid_t> tree = {::getpid()};
  for (size_t i = 0; i < tree.size(); ++i) {
    for (const auto& [parent, process] : all) {
      if (parent == tree[i]) tree.push_back(process);
    }
  }
  tree.erase(tree.begin());
  return tree;
}

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
}
HeldSignals::~HeldSignals() {
  sigprocmask(SIG_SETMASK, &before_, nullptr);
}

std::optional<int> HeldSignals::take(double seconds) const {
  timespec wait{};
  wait.tv_sec = static_cast<time_t>(seconds);
  wait.tv_nsec = static_cast<long>((seconds - std::floor(seconds)) * 1e9);
  const int signal = sigtimedwait(&held_, nullptr, &wait);
  return signal > 0 ? std::optional(signal) : std::nullopt;
}

Job::Job(const std::vector<std::string>& command, const HeldSignals& signals) {
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

std::optional<int> Job::poll() {
  int status = 0;
  for (pid_t ended; (ended = ::waitpid(-1, &status, WNOHANG)) > 0;) {
    if (ended == pid_) code_ = code_of(status);
  }
  return code_;
}

bool Job::has_children() const {
  const std::vector<pid_t> tree = descendants();
  return std::any_of(tree.begin(), tree.end(), [this](pid_t process) { return process != pid_; });
}

int Job::end_all(double seconds) {
  const auto begin = std::chrono::steady_clock::now();
  std::vector<pid_t> killed;
  for (;;) {
    poll();
    const std::vector<pid_t> left = descendants();
    if (left.empty()) return static_cast<int>(killed.size());
    if (std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count() > seconds) return -static_cast<int>(left.size());
    for (const pid_t process : left) {
      ::kill(process, SIGKILL);
      if (std::find(killed.begin(), killed.end(), process) == killed.end()) killed.push_back(process);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace heddle::app
