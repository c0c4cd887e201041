#include "core/io/json_reader.h"

namespace heddle {

size_t utf8_length(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) -> uint32_t { return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u; };
  const auto tail = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  const uint32_t b = byte(0);
  if (at >= text.size()) return 0;
  if (b < 0x80) return 1;
  if (b >= 0xC2 && b <= 0xDF) return tail(1) ? 2 : 0;
  if (b >= 0xE0 && b <= 0xEF) {
    const bool valid = tail(1) && tail(2) && !(b == 0xE0 && byte(1) < 0xA0) && !(b == 0xED && byte(1) > 0x9F);
    return valid ? 3 : 0;
  }
  if (b >= 0xF0 && b <= 0xF4) {
    const bool valid = tail(1) && tail(2) && tail(3) && !(b == 0xF0 && byte(1) < 0x90) && !(b == 0xF4 && byte(1) > 0x8F);
    return valid ? 4 : 0;
  }
  return 0;
}

void JsonReader::fail_here(const std::string& rule) const {
  fail("json", concat(place_, " byte ", base_ + at_, ": ", rule), ExitCode::bad_data);
}

void JsonReader::skip_space() {
  while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
}

char JsonReader::peek() {
  skip_space();
  if (at_ >= text_.size()) fail_here("the JSON text ends too early");
  return text_[at_];
}

void JsonReader::expect(char c) {
  if (peek() != c) fail_here(concat("expected '", c, "'"));
  ++at_;
}

void JsonReader::begin_object() {
  expect('{');
  first_ = true;
}

void JsonReader::begin_array() {
  expect('[');
  first_ = true;
}

bool JsonReader::next_key(std::string& key) {
  constexpr size_t kLongestKey = 1024;
  const bool first = first_;
  first_ = false;
  if (peek() == '}') {
    ++at_;
    return false;
  }
  if (!first) expect(',');
  key = string(kLongestKey);
  expect(':');
  return true;
}

bool JsonReader::next_item() {
  const bool first = first_;
  first_ = false;
  if (peek() == ']') {
    ++at_;
    return false;
  }
  if (!first) expect(',');
  return true;
}

uint32_t JsonReader::hex4() {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = at_ < text_.size() ? text_[at_] : '\0';
    const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit < 0) fail_here("\\u needs four hexadecimal digits");
    value = value << 4 | static_cast<uint32_t>(digit);
    ++at_;
  }
  return value;
}

std::string JsonReader::string(size_t limit) {
  expect('"');
  std::string out;
  while (true) {
    if (at_ >= text_.size()) fail_here("a string is not closed");
    const char c = text_[at_];
    if (c == '"') break;
    if (static_cast<unsigned char>(c) < 0x20) fail_here("a control character stands in a string");
    if (c != '\\') {
      const size_t n = utf8_length(text_, at_);
      if (n == 0) fail_here("the text is not valid UTF-8");
      out.append(text_, at_, n);
      at_ += n;
    } else {
      ++at_;
      const char escape = at_ < text_.size() ? text_[at_] : '\0';
      ++at_;
      switch (escape) {
        case '"':
        case '\\':
        case '/': out += escape; break;
        case 'b': out += '\b'; break;
        case 'f': out += '\f'; break;
        case 'n': out += '\n'; break;
        case 'r': out += '\r'; break;
        case 't': out += '\t'; break;
        case 'u': {
          uint32_t code = hex4();
          if (code >= 0xDC00 && code <= 0xDFFF) fail_here("a low surrogate stands alone");
          if (code >= 0xD800 && code <= 0xDBFF) {
            if (text_.substr(at_, 2) != "\\u") fail_here("a high surrogate stands alone");
            at_ += 2;
            const uint32_t low = hex4();
            if (low < 0xDC00 || low > 0xDFFF) fail_here("a high surrogate is not followed by a low one");
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
          }
          if (code < 0x80) {
            out += static_cast<char>(code);
          } else if (code < 0x800) {
            out += static_cast<char>(0xC0 | code >> 6);
            out += static_cast<char>(0x80 | (code & 63));
          } else if (code < 0x10000) {
            out += static_cast<char>(0xE0 | code >> 12);
            out += static_cast<char>(0x80 | (code >> 6 & 63));
            out += static_cast<char>(0x80 | (code & 63));
          } else {
            out += static_cast<char>(0xF0 | code >> 18);
            out += static_cast<char>(0x80 | (code >> 12 & 63));
            out += static_cast<char>(0x80 | (code >> 6 & 63));
            out += static_cast<char>(0x80 | (code & 63));
          }
          break;
        }
        default: fail_here("unknown escape in a string");
      }
    }
    if (out.size() > limit) fail_here(concat("a string is longer than ", limit, " bytes"));
  }
  ++at_;
  return out;
}

std::string_view JsonReader::plain_string() {
  expect('"');
  const size_t begin = at_;
  while (at_ < text_.size() && text_[at_] != '"') {
    const auto c = static_cast<unsigned char>(text_[at_]);
    if (c < 0x20 || c > 0x7e || c == '\\') fail_here("only printable ASCII without escapes is accepted in this string");
    ++at_;
  }
  if (at_ >= text_.size()) fail_here("a string is not closed");
  return text_.substr(begin, at_++ - begin);
}

uint64_t JsonReader::u64() {
  const char c = peek();
  if (c < '0' || c > '9') fail_here("expected a non-negative integer");
  uint64_t value = 0;
  const size_t begin = at_;
  while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
    const auto digit = static_cast<uint64_t>(text_[at_] - '0');
    if (value > (UINT64_MAX - digit) / 10) fail_here("an integer exceeds 64 bits");
    value = value * 10 + digit;
    ++at_;
  }
  if (text_[begin] == '0' && at_ - begin > 1) fail_here("an integer has a leading zero");
  if (at_ < text_.size() && (text_[at_] == '.' || text_[at_] == 'e' || text_[at_] == 'E'))
    fail_here("expected an integer, found a fraction or exponent");
  return value;
}

void JsonReader::end() {
  skip_space();
  if (at_ != text_.size()) fail_here("something follows the JSON value");
}

}  // namespace heddle
