// The flags of one subcommand, driven by option tables. CLI11 reads the command line; values are parsed by the tables alone, so that a flag,
// a variable and a config key can never read differently. In arguments.cpp, the only place that sees CLI11.
#pragma once

#include <functional>
#include <iosfwd>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "train/config/option.h"

namespace heddle::app {

using Args = std::span<const std::string>;  // what follows the subcommand

// An option and what to do with its text. `place` opens error messages ("--lr").
struct BoundOption {
  OptionInfo info;
  std::function<void(std::string_view text, const std::string& place)> set;
};

struct CommandHelp {
  std::string_view name;         // "generate"
  std::string_view usage;        // "RUN|DIR --prompt TEXT [flags]"
  std::string_view description;  // one paragraph
  std::string_view examples;     // lines, indented as they shall appear
};

// Fills the bound options from `args` and returns true; or prints --help to standard output and returns false. Switches take --x, --no-x,
// --x=true, --x=false; the last of several values stands, lists append. Unknown flags, missing values and stray arguments are Error(usage)
// with the nearest match.
bool parse_arguments(const CommandHelp& help, std::span<const BoundOption> options, Args args);

void print_help(std::ostream& out, const CommandHelp& help, std::span<const BoundOption> options);

template <class T>
std::vector<BoundOption> bind_options(std::span<const Option<T>> table, T& to) {
  std::vector<BoundOption> bound;
  for (const Option<T>& option : table) {
    bound.push_back({option.info(), [&option, &to](std::string_view text, const std::string& place) { option.set(to, text, place); }});
  }
  return bound;
}

}  // namespace heddle::app
