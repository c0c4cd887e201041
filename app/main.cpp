#include "app/command.h"
#include "kernels/api/check.h"
#include "kernels/api/kernel.h"
#include "parallel/communicator.h"

int main(int argc, char** argv) {
  heddle::kernels::register_cpu_kernels();
  const std::vector<std::string> args(argv + (argc > 0 ? 1 : 0), argv + argc);
  const int code = heddle::app::run_program(args);
  // A rank that fails alone would leave the others waiting in a collective.
  if (code != 0 && code != static_cast<int>(heddle::ExitCode::requeue)) heddle::abort_world(code);
  return code;
}
