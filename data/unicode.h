// The three character classes that tokenizer split rules ask for: letters, numbers, white space.
//
// Source: the Unicode Character Database (UAX #44): General_Category L* and N*, property White_Space of PropList.txt. The tables are
// written by unicode_tables.sh.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace heddle::unicode {

struct CodeRange {
  uint32_t first, last;  // inclusive
};

enum class Class : uint8_t { other, letter, number, space };

inline constexpr uint32_t kInvalid = 0xFFFFFFFF;  // what an invalid byte decodes to

struct Decoded {
  uint32_t code = kInvalid;  // the code point, or kInvalid
  uint32_t length = 1;       // bytes consumed: 1 for an invalid byte
};

// The character at `at` (< text.size()). UTF-8 as RFC 3629 has it: overlong forms, surrogates, values above U+10FFFF and cut-off sequences
// are invalid, and then exactly one byte is consumed.
Decoded decode(std::string_view text, size_t at);

// The class of a code point; kInvalid and unassigned code points are `other`.
Class classify(uint32_t code);

}  // namespace heddle::unicode
