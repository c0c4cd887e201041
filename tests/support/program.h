// Programs as child processes: started, watched, killed, and what they left behind.
#pragma once

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace heddle::test {

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One running child. Standard output and error are appended to `log`. It dies with this process, and with this object.
class Program {
 public:
  // `prepare` runs in the child before it becomes the program (limits, signal masks): async-signal-safe calls only.
  Program(const std::vector<std::string>& arguments, const std::string& log, const std::function<void()>& prepare = {}) : started_(Clock::now()) {
    std::vector<char*> argv;
    for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    ::signal(SIGHUP, SIG_DFL);  // tests that were started by nohup send it all the same
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0644), in = ::open("/dev/null", O_RDONLY);
    ::dup2(in, 0), ::dup2(out, 1), ::dup2(out, 2);
    if (prepare) prepare();
    ::execv(argv[0], argv.data());
    ::_exit(127);
  }
  ~Program() {
    if (pid_ <= 0) return;
    signal_group(SIGKILL);
    signal(SIGKILL);
    wait(60);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  double age() const { return seconds_since(started_); }
  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }
  void signal(int number) const { ::kill(pid_, number); }
  void signal_group(int number) const { ::kill(-pid_, number); }  // of one whose `prepare` made it a group's leader

  // The exit code, 128 + n for death by signal n, or nothing yet.
  bool poll(int& code) {
    int status = 0;
    if (pid_ <= 0 || ::waitpid(pid_, &status, WNOHANG) != pid_) return false;
    pid_ = 0;
    code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
  }
  static constexpr int kStillRunning = -1;
  // As poll() says, after at most this many seconds; then kStillRunning.
  int wait(double seconds) {
    const Clock::time_point begin = Clock::now();
    int code = kStillRunning;
    while (!poll(code)) {
      // The clock goes on while this process is stopped: time that is up is no verdict before one more look.
      if (seconds_since(begin) > seconds) return poll(code) ? code : kStillRunning;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
    return code;
  }

 private:
  pid_t pid_ = -1;
  Clock::time_point started_;
};

}  // namespace heddle::test
