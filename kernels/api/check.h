// The one error type of heddle and the checks that throw it.
//
// Every message reads `[op] rule: values (file:line, rank r)`. Nothing in heddle calls exit, abort or assert on input.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace heddle {

// Exit codes of the `heddle` program. An Error carries the one its cause deserves.
enum class ExitCode : int {
  ok = 0,
  runtime = 1,
  usage = 2,           // unknown flag, bad value, impossible configuration
  bad_data = 65,       // a file's content is wrong
  no_device = 69,      // no usable GPU or driver
  out_of_memory = 71,  // device memory; the message says which flag helps
  in_use = 73,         // another job holds the run directory
  io = 74,             // read, write, fsync, disk full
  requeue = 75,        // checkpointed, start me again
  mismatch = 78,       // resume with a configuration that must match and does not
  hung = 86,           // a rank stopped answering
};

class Error : public std::runtime_error {
 public:
  explicit Error(const std::string& text, ExitCode code = ExitCode::runtime) : std::runtime_error(text), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// concat("a ", 3, " b") == "a 3 b"; g++ 12 has no <format>. std::bad_alloc when memory runs out, never half the text.
template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  out.exceptions(std::ios::badbit);  // without it a stream swallows bad_alloc and goes on
  (out << ... << parts);
  return out.str();
}

// The rank that every error of this process names; -1 (one process): none.
void set_error_rank(int rank);

// Throws Error "[op] text (file:line, rank r)".
[[noreturn]] void fail(std::string_view op, const std::string& text, ExitCode code = ExitCode::runtime, const char* file = __builtin_FILE(),
                       int line = __builtin_LINE());

}  // namespace heddle

// HEDDLE_CHECK(k == k2, "matmul", "inner dimensions differ: a ", shape_text(a), ", b ", shape_text(b));
#define HEDDLE_CHECK(condition, op, ...)                                   \
  do {                                                                     \
    if (!(condition)) ::heddle::fail((op), ::heddle::concat(__VA_ARGS__)); \
  } while (false)
