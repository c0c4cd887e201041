#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <new>
#include <thread>

#include "app/command.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"
#include "parallel/launch.h"

#ifndef HEDDLE_VERSION
#error "HEDDLE_VERSION comes from app/CMakeLists.txt"
#endif

namespace heddle::app {
namespace {

void print_overview(std::ostream& out) {
  out << "usage: heddle COMMAND [flags]\n\nTrains transformers from scratch.\n\nCommands\n";
  for (const Command& c : commands()) out << "  " << c.name << std::string(c.name.size() < 12 ? 12 - c.name.size() : 1, ' ') << c.summary << "\n";
  out << "\n  heddle COMMAND --help   flags and examples of a command\n"
         "  heddle --version        version and how it was built\n"
         "\nExit codes\n"
         "  0 ok   1 runtime   2 usage or configuration   65 bad data, or no checkpoint to resume   69 no usable GPU\n"
         "  71 out of memory   73 run directory in use   74 I/O   75 checkpointed, start me again   86 a rank hung\n"
         "  78 what does not belong together: options or shards and the run, shards and a tokenizer   128+n signal n\n";
}

int dispatch(Args args) {
  if (args.empty()) {
    print_overview(std::cerr);
    return static_cast<int>(ExitCode::usage);
  }
  const std::string& word = args.front();
  if (word == "--version" || word == "-V" || word == "version") {
    std::cout << version_text() << "\n";
    return 0;
  }
  const bool help = word == "--help" || word == "-h" || word == "help";
  if (help && args.size() == 1) {
    print_overview(std::cout);
    return 0;
  }
  const std::string& name = help ? args[1] : word;
  std::vector<std::string> names = {"help", "version"};
  for (const Command& c : commands()) {
    if (c.name == name) {
      const bool asks = help || std::find_if(args.begin(), args.end(), [](const std::string& a) { return a == "--help" || a == "-h"; }) != args.end();
      if (const Launch launch = launch_of_this_process(); !c.parallel && !asks && launch.ranks > 1) {
        fail_usage("heddle", concat(name, " is the work of one process, which uses all cores, but was started as ", launch.ranks, " ranks (",
                                    launch.variable, "): start it without mpirun or srun"));
      }
      const std::vector<std::string> only_help = {"--help"};
      return c.run(help ? Args(only_help) : args.subspan(1));
    }
    names.emplace_back(c.name);
  }
  fail("heddle", concat("unknown command ", quote_text(name), suggestion(name, names), "; see heddle --help"), ExitCode::usage);
}

// Ranks mostly fail alike, and the end of one is the end of all. So rank 0 speaks at once and the others only when it has nothing to say.
int report(std::string_view message, ExitCode code) {
  constexpr std::chrono::seconds kPatience(2);
  if (launch_of_this_process().rank > 0) std::this_thread::sleep_for(kPatience);
  std::signal(SIGPIPE, SIG_IGN);  // nobody may be reading any more; the exit code still says it
  std::cout.flush();
  std::cerr << "heddle: " << printable(message, true) << std::endl;
  return static_cast<int>(code);
}

}  // namespace

int run_program(Args args) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file-size limit (ulimit -f) is an error of the write that meets it, with a message
  try {
    const int code = dispatch(args);
    std::cout.flush();  // and with it stdout
    if (code == 0 && !std::cout) fail("heddle", "cannot write to standard output", ExitCode::io);
    return code;
  } catch (const Error& e) {
    return report(e.what(), e.code());
  } catch (const std::bad_alloc&) {
    return report(
        "out of memory. A smaller --batch (the same update in more micro-steps), --recompute or a shorter --seq need less; "
        "heddle pretrain --dry-run shows where it goes",
        ExitCode::out_of_memory);
  } catch (const std::filesystem::filesystem_error& e) {
    return report(e.what(), ExitCode::io);
  } catch (const std::exception& e) {
    return report(e.what(), ExitCode::runtime);
  }
}

std::string version_text() {
#if defined(__clang__)
  const std::string compiler = concat("clang ", __clang_major__, ".", __clang_minor__, ".", __clang_patchlevel__);
#else
  const std::string compiler = concat("g++ ", __GNUC__, ".", __GNUC_MINOR__, ".", __GNUC_PATCHLEVEL__);
#endif
  return concat("heddle " HEDDLE_VERSION " (" HEDDLE_BUILD_TYPE ", ", compiler, ", -march=" HEDDLE_BUILD_MARCH ")");
}

}  // namespace heddle::app
