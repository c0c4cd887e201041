#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <ctime>

#include "tests/support/catch.h"
#include "tests/train/expect_error.h"
#include "train/signals.h"

namespace heddle {
namespace {

void wait_milliseconds(long n) {
  timespec t{n / 1000, n % 1000 * 1000000};
  nanosleep(&t, nullptr);
}

TEST_CASE("signals and the time limit ask to stop") {
  struct sigaction before {
  }, after{};
  ::sigaction(SIGTERM, nullptr, &before);
  {
    const StopSignals stop;
    CHECK(!stop.poll());
    CHECK(std::isinf(stop.remaining()));
    ::raise(SIGTERM);
    CHECK(stop.poll().reason == StopReason::terminate);
    expect_error([] { StopSignals second; }, ExitCode::runtime, {"two StopSignals"});
  }
  {
    const StopSignals stop;
    CHECK(!stop.poll());  // nothing is left over
    ::raise(SIGUSR1);
    ::raise(SIGUSR1);  // Slurm and mpirun both deliver it
    CHECK(stop.poll().reason == StopReason::user1);
  }
  {
    const StopSignals stop(0.05);
    CHECK(!stop.poll());
    CHECK(stop.remaining() <= 0.05);
    wait_milliseconds(60);
    CHECK(stop.poll().reason == StopReason::time_limit);
    ::raise(SIGINT);
    CHECK(stop.poll().reason == StopReason::interrupt);
  }
  ::sigaction(SIGTERM, nullptr, &after);
  CHECK(after.sa_handler == before.sa_handler);  // given back
  CHECK(name_of(StopReason::time_limit) == "--time-limit");
}

// In a child process: signals sent one after another; returns how it ended.
int child_status(const std::vector<int>& signals, long pause) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (const int signal : {SIGHUP, SIGINT}) ::signal(signal, SIG_DFL);  // this test may run under nohup
    const StopSignals stop;
    ::close(STDERR_FILENO);
    for (const int signal : signals) {
      ::raise(signal);
      wait_milliseconds(pause);
    }
    ::_exit(stop.poll() ? 75 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_CASE("a second signal ends the process at once with 128 + n") {
  CHECK(WEXITSTATUS(child_status({SIGTERM}, 0)) == 75);
  CHECK(WEXITSTATUS(child_status({SIGTERM, SIGTERM}, 0)) == 128 + SIGTERM);
  CHECK(WEXITSTATUS(child_status({SIGINT, SIGINT}, 0)) == 128 + SIGINT);
  CHECK(WEXITSTATUS(child_status({SIGUSR1, SIGTERM}, 1050)) == 128 + SIGTERM);
  CHECK(WEXITSTATUS(child_status({SIGUSR1, SIGTERM}, 0)) == 75);  // and the two may come in either order
  CHECK(WEXITSTATUS(child_status({SIGTERM, SIGUSR1}, 0)) == 75);  // one passes on what all were told
  CHECK(WEXITSTATUS(child_status({SIGTERM, SIGUSR1}, 1050)) == 128 + SIGUSR1);
  CHECK(WEXITSTATUS(child_status({SIGUSR1, SIGUSR1}, 0)) == 75);
  CHECK(WEXITSTATUS(child_status({SIGUSR1, SIGUSR1}, 1050)) == 128 + SIGUSR1);
  CHECK(WEXITSTATUS(child_status({SIGPIPE}, 0)) == 0);
  // A session that ends sends SIGHUP from several sides, next to SIGTERM: nobody is impatient.
  CHECK(WEXITSTATUS(child_status({SIGHUP, SIGHUP}, 0)) == 75);
  CHECK(WEXITSTATUS(child_status({SIGHUP, SIGTERM, SIGHUP}, 0)) == 75);
  CHECK(WEXITSTATUS(child_status({SIGTERM, SIGHUP}, 0)) == 75);
  CHECK(WEXITSTATUS(child_status({SIGHUP, SIGTERM, SIGTERM}, 0)) == 128 + SIGTERM);
}

}  // namespace
}  // namespace heddle
