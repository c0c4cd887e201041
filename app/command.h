// The subcommands of the heddle program. Each stands in a file of its own; commands.cpp lists them.
#pragma once

#include <span>
#include <string_view>

#include "app/arguments.h"

namespace heddle::app {

struct Command {
  std::string_view name;
  std::string_view summary;  // one line for `heddle --help`
  bool parallel;             // several ranks of a launcher make one job of it; else they would do the same work side by side
  int (*run)(Args args);     // exit code; throws Error
};

// In the order of `heddle --help`.
std::span<const Command> commands();

// Runs `heddle args...`: finds the subcommand, turns whatever it throws into a message on standard error and an exit code.
int run_program(Args args);

// "heddle 0.1.0 (Release, g++ 12.2.0, -march=native)"
std::string version_text();

int tokenize_command(Args args);
int pretrain_command(Args args);
int supervise_command(Args args);
int generate_command(Args args);
int eval_command(Args args);
int inspect_command(Args args);
int bench_command(Args args);
int doctor_command(Args args);

}  // namespace heddle::app
