#include <csignal>

#include "app/command.h"
#include "kernels/api/check.h"
#include "kernels/api/kernel.h"
#include "parallel/launch.h"

int main(int argc, char** argv) {
  constexpr int kInterrupted = 128 + SIGINT;
  heddle::kernels::register_cpu_kernels();
  const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
  const int code = heddle::app::run_program(args);
  if (code == kInterrupted && !heddle::launch_of_this_process().found) {
    // A shell leaves its loop only when it sees that Ctrl-C ended the program. A launcher would only make a longer message of it.
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);
  }
  // A rank that fails alone would leave the others waiting in a collective; ranks that were asked to stop have agreed on it.
  if (code != 0 && code != static_cast<int>(heddle::ExitCode::requeue) && code != kInterrupted) heddle::abort_world(code);
  return code;
}
