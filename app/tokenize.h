// `heddle tokenize`: text files to token shards.
#pragma once

#include <iosfwd>

#include "app/arguments.h"
#include "data/prepare.h"

namespace heddle::app {

// Reads the flags; false when --help was printed. Error(usage).
bool parse_tokenize(Args args, PrepareOptions& options);

// Does the work and prints what was written to `out`; returns the exit code.
int run_tokenize(const PrepareOptions& options, std::ostream& out);

int tokenize_command(Args args);

}  // namespace heddle::app
