// What every fuzz target is made of: one function over the bytes of an input, and the rules a parser is held to while it reads them.
//
// A target calls parse_input() around the parser under test and then checks, outside of it, that what was accepted is consistent and is written and
// read again to the same object. Refusals are Errors with one of the exit codes the parser documents; any other exception, an allocation beyond the
// bound, a second of processor time and a broken property end the process, which is how a fuzzer and the replay of the corpus notice.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>

#include "kernels/api/check.h"

namespace heddle::fuzz {

// Defined by each target; called once for each input. Keeps no state between calls.
void run_target(std::string_view input);
// run_target() within kMostSeconds, or broken(). Counts processor time, which a busy machine does not stretch.
constexpr int kMostSeconds = 1;
void run_input(std::string_view input);

// What became of the last input, for the replay of the corpus. Neither: the input did not reach a parser.
struct Outcome {
  bool accepted = false, refused = false;
  std::string message;  // of the refusal
};
Outcome& outcome();

// A property does not hold: says which on standard error and aborts.
[[noreturn]] void broken(const std::string& what);
template <class... Parts>
void require(bool holds, const Parts&... what) {
  if (!holds) broken(concat(what...));
}

// Memory from operator new that is held at one time on this thread beyond what was held at construction: at most `limit` bytes, or broken().
class AllocationBound {
 public:
  explicit AllocationBound(size_t limit);
  ~AllocationBound();
  AllocationBound(const AllocationBound&) = delete;
  AllocationBound& operator=(const AllocationBound&) = delete;
};

// The rules of one parser.
struct Rules {
  std::initializer_list<ExitCode> codes;  // a refusal carries one of these
  size_t times_input = 2;                 // bytes allocated: at most times_input * input + allowance
  size_t allowance = size_t{1} << 20;
};

// The parser's result, or nothing when it refused the input.
template <class Parse>
auto parse_input(const Rules& rules, size_t input_bytes, Parse parse) -> std::optional<decltype(parse())> {
  Outcome& out = outcome();
  out = {};
  try {
    const AllocationBound bound(rules.times_input * input_bytes + rules.allowance);
    std::optional<decltype(parse())> result(parse());
    out.accepted = true;
    return result;
  } catch (const Error& e) {
    bool documented = false;
    for (const ExitCode code : rules.codes) documented = documented || code == e.code();
    require(documented, "refused with exit code ", static_cast<int>(e.code()), ", which the parser does not document: ", e.what());
    require(e.what()[0] != '\0', "refused without a word");
    out.refused = true;
    out.message = e.what();
    return std::nullopt;
  }
}

// True when `body` throws Error with this code; other exceptions pass.
template <class Body>
bool is_refused(ExitCode code, Body body) {
  try {
    body();
    return false;
  } catch (const Error& e) {
    return e.code() == code;
  }
}

// An input taken apart into numbers and texts; zeros when it has run out, so every input means something.
class Bytes {
 public:
  explicit Bytes(std::string_view input) : rest_(input) {}
  bool done() const { return rest_.empty(); }
  size_t size() const { return rest_.size(); }
  std::string_view rest() const { return rest_; }

  uint8_t byte() {
    if (rest_.empty()) return 0;
    const auto b = static_cast<uint8_t>(rest_[0]);
    rest_.remove_prefix(1);
    return b;
  }
  uint64_t number(int bytes) {  // little-endian
    uint64_t n = 0;
    for (int i = 0; i < bytes; ++i) n |= static_cast<uint64_t>(byte()) << (8 * i);
    return n;
  }
  uint64_t below(uint64_t n) { return n <= 256 ? byte() % n : number(8) % n; }
  std::string_view take(size_t bytes) {
    const std::string_view taken = rest_.substr(0, bytes);
    rest_.remove_prefix(taken.size());
    return taken;
  }

 private:
  std::string_view rest_;
};

// The bytes under a path that any function taking one can open: an unlinked file in memory.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  const std::string& path() const { return path_; }

 private:
  int descriptor_ = -1;
  std::string path_;
};

// A folder for what must have a name to be written, below HEDDLE_TEST_SCRATCH, /dev/shm or the system's temporary one. Made on first use, removed at
// exit.
const std::string& scratch_folder();

}  // namespace heddle::fuzz
