// What a terminal or a log shows must not be able to steer it: names and values come from files and from other people. And how words are counted.
#pragma once

#include <concepts>
#include <string>
#include <string_view>

namespace heddle {

// The bytes of the character at text[at]; `steers`: it is a control character (C0, DEL, C1), a mark that reorders text, or no UTF-8.
inline size_t character_length(std::string_view text, size_t at, bool& steers) {
  const auto byte = [&](size_t i) { return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u; };
  const unsigned b = byte(0), second = byte(1), third = byte(2);
  size_t length = b < 0x80 ? 1 : b >= 0xc2 && b <= 0xdf ? 2 : b >= 0xe0 && b <= 0xef ? 3 : b >= 0xf0 && b <= 0xf4 ? 4 : 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) length = 0;
  }
  // U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069.
  const bool mark = b == 0xe2 && ((second == 0x80 && (third == 0x8e || third == 0x8f || (third >= 0xa8 && third <= 0xae))) ||
                                  (second == 0x81 && third >= 0xa6 && third <= 0xa9));
  steers = b < 0x20 || b == 0x7f || length == 0 || (b == 0xc2 && second < 0xa0) || mark;
  return length == 0 ? 1 : length;
}

// `text` with what steers written as \n, \t, \r or \xNN for each byte. Text without it, and text that has been through here, comes back as it is.
// `lines`: a line break that is followed by two spaces or ends the text stays; so do the messages and tables of heddle begin their further lines, and
// a value cannot look like a message of its own.
inline std::string printable(std::string_view text, bool lines = false) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    bool steers = false;
    length = character_length(text, at, steers);
    const bool own_break = lines && text[at] == '\n' && (at + 1 == text.size() || text.substr(at + 1, 2) == "  ");
    if (own_break || !steers) {
      out.append(text, at, length);
      continue;
    }
    for (const char c : text.substr(at, length)) {
      out += '\\';
      if (c == '\n' || c == '\t' || c == '\r') {
        out += c == '\n' ? 'n' : c == '\t' ? 't' : 'r';
      } else {
        out += 'x';
        out += kHex[static_cast<unsigned char>(c) >> 4];
        out += kHex[static_cast<unsigned char>(c) & 15];
      }
    }
  }
  return out;
}

// `what`, as it is after a 1, else its plural.
template <std::integral N>
std::string plural(N n, std::string_view what) {
  return std::string(what) + (n == 1 ? "" : "s");
}

// "1 step", "2 steps".
template <std::integral N>
std::string counted(N n, std::string_view what) {
  return std::to_string(n) + " " + plural(n, what);
}

}  // namespace heddle
