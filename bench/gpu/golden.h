// Golden files: what the conformance cases gave on one machine. One case a line:
//   NAME bits WORDS HASH...    equality: eight 64-bit hashes of an eighth of the words each, so that a difference is narrowed down
//   NAME near WORDS WORD...    approximations: the words themselves
// A '#' starts a comment.
#pragma once

#include <map>
#include <string>

#include "bench/gpu/conformance.h"

namespace heddle::bench {

struct Golden {
  std::string file;  // its name, for messages
  std::map<std::string, std::string> lines;
};
// Error when it cannot be read.
Golden read_golden(const std::string& path);

std::string golden_line(const ConformanceCase& c, const Words& words);
// "" when the words agree with the golden line of the case, else what differs, with the words as they are.
std::string compare_with_golden(const ConformanceCase& c, const Words& words, const Golden& golden);

}  // namespace heddle::bench
