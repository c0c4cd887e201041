// A strict pull reader for JSON whose shape is known: safetensors headers and checkpoint manifests.
//
// The caller asks for what must come next, so unknown keys, wrong types and nesting cannot pass, nothing is built in memory but the strings taken,
// and every message carries the byte offset. Text must be UTF-8 (RFC 8259, RFC 3629). Errors are Error(bad_data).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "kernels/api/check.h"

namespace heddle {

class JsonReader {
 public:
  // `place` names the source in messages; `base` is the file offset of text[0].
  JsonReader(std::string_view text, std::string_view place, uint64_t base = 0) : text_(text), place_(place), base_(base) {}

  // Objects: begin_object(); std::string key; while (next_key(key)) { <read the value> }
  void begin_object();
  bool next_key(std::string& key);  // false: the object has ended

  // Arrays: begin_array(); while (next_item()) { <read the item> }
  void begin_array();
  bool next_item();

  std::string string(size_t limit);
  std::string_view plain_string();  // without escapes: a window on the text
  uint64_t u64();                   // a plain non-negative integer, no sign, fraction, exponent or leading zero
  void end();                       // only white space is left

  // Throws "[json] PLACE byte N: rule".
  [[noreturn]] void fail_here(const std::string& rule) const;

 private:
  char peek();
  void expect(char c);
  void skip_space();
  uint32_t hex4();

  std::string_view text_, place_;
  uint64_t base_;
  size_t at_ = 0;
  bool first_ = false;  // just after { or [
};

// The length of the valid UTF-8 sequence at text[at] (no surrogates, no overlong forms), 0 when there is none.
size_t utf8_length(std::string_view text, size_t at);

}  // namespace heddle
