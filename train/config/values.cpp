#include "train/config/values.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>

#include "kernels/api/check.h"
#include "kernels/api/printable.h"

namespace heddle {
namespace {

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

[[noreturn]] void refuse(std::string_view place, std::string_view text, std::string_view rule) {
  fail_usage("config", concat(place, ": ", quote_text(text), " ", rule));
}

constexpr std::string_view kCountRule = "is not a count (a whole number >= 0, with k, M, G for powers of 1024, or like 1e9)";

std::string_view take_digits(std::string_view& text) {
  size_t n = 0;
  while (n < text.size() && is_digit(text[n])) ++n;
  const std::string_view digits = text.substr(0, n);
  text.remove_prefix(n);
  return digits;
}

}  // namespace

void fail_usage(std::string_view op, const std::string& text) {
  throw Error(concat("[", op, "] ", printable(text, true)), ExitCode::usage);
}

int64_t parse_count(std::string_view text, std::string_view place) {
  // The value is digits * 10^exponent * 2^shift, kept in integers throughout.
  std::string_view rest = text;
  std::string digits(take_digits(rest));
  int exponent = 0, shift = 0;
  if (!rest.empty() && rest[0] == '.') {
    rest.remove_prefix(1);
    const std::string_view fraction = take_digits(rest);
    if (digits.empty() || fraction.empty()) refuse(place, text, kCountRule);
    digits += fraction;
    exponent = -static_cast<int>(fraction.size());
  }
  if (digits.empty() || digits.size() > 400) refuse(place, text, kCountRule);
  if (rest.size() >= 2 && (rest[0] == 'e' || rest[0] == 'E')) {
    int written = 0;
    const char* begin = rest.data() + 1 + (rest[1] == '+' ? 1 : 0);
    const auto [end, error] = std::from_chars(begin, rest.data() + rest.size(), written);
    if (error != std::errc{} || end != rest.data() + rest.size() || written < -400 || written > 400) refuse(place, text, kCountRule);
    exponent += written;
  } else if (rest == "k" || rest == "K") {
    shift = 10;
  } else if (rest == "M") {
    shift = 20;
  } else if (rest == "G") {
    shift = 30;
  } else if (!rest.empty()) {
    refuse(place, text, kCountRule);
  }

  digits.erase(0, digits.find_first_not_of('0'));
  while (!digits.empty() && digits.back() == '0') {
    digits.pop_back();
    ++exponent;
  }
  if (digits.empty()) return 0;
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  constexpr std::string_view kTooBig = "is more than 9223372036854775807";
  // A fraction has at most as many decimal places as the factor 2^shift has twos.
  if (-exponent > shift) refuse(place, text, kCountRule);
  if (digits.size() + static_cast<size_t>(std::max(exponent, 0)) > 45) refuse(place, text, kTooBig);
  unsigned __int128 value = 0;  // < 10^28 below: at most 19 + 9 digits get this far unrefused
  for (const char c : digits) {
    value = value * 10 + static_cast<unsigned>(c - '0');
    if (value >> 96 != 0) refuse(place, text, kTooBig);
  }
  value <<= shift;
  for (; exponent < 0; ++exponent) {
    if (value % 10 != 0) refuse(place, text, kCountRule);
    value /= 10;
  }
  for (; exponent > 0 && value <= static_cast<unsigned __int128>(kMost); --exponent) value *= 10;
  if (value > static_cast<unsigned __int128>(kMost)) refuse(place, text, kTooBig);
  return static_cast<int64_t>(value);
}

double parse_real(std::string_view text, std::string_view place) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc::result_out_of_range) refuse(place, text, "is out of the range of a double");
  if (error != std::errc{} || end != text.data() + text.size()) refuse(place, text, "is not a number");
  if (!std::isfinite(value)) refuse(place, text, "is not finite");
  return value;
}

double parse_duration(std::string_view text, std::string_view place) {
  constexpr std::string_view kRule = "is not a duration (seconds, or like 90s, 1h30m, 2d, 01:30:00, 1-12:00:00)";
  constexpr double kLongest = 1e9;  // 31 years
  double seconds = 0;
  if (text.find(':') != std::string_view::npos) {
    std::string_view rest = text;
    int64_t parts[4] = {0, 0, 0, 0};  // days, hours, minutes, seconds
    int first = 1;
    if (text.find('-') != std::string_view::npos) first = 0;
    for (int i = first; i < 4; ++i) {
      const std::string_view digits = take_digits(rest);
      if (digits.empty() || digits.size() > 6) refuse(place, text, kRule);
      std::from_chars(digits.data(), digits.data() + digits.size(), parts[i]);
      const char separator = i == 0 ? '-' : ':';
      if (i < 3 && (rest.empty() || rest[0] != separator)) refuse(place, text, kRule);
      if (i < 3) rest.remove_prefix(1);
    }
    if (!rest.empty() || parts[2] > 59 || parts[3] > 59) refuse(place, text, kRule);
    seconds = static_cast<double>(((parts[0] * 24 + parts[1]) * 60 + parts[2]) * 60 + parts[3]);
  } else {
    std::string_view rest = text;
    double last_unit = 0;  // units must shrink: "1h30m", never "30m1h"
    if (rest.empty()) refuse(place, text, kRule);
    while (!rest.empty()) {
      if (!is_digit(rest[0])) refuse(place, text, kRule);
      double value = 0;
      const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), value);
      if (error != std::errc{}) refuse(place, text, kRule);
      rest.remove_prefix(static_cast<size_t>(end - rest.data()));
      double unit = 1;
      if (!rest.empty()) {
        switch (rest[0]) {
          case 's': unit = 1; break;
          case 'm': unit = 60; break;
          case 'h': unit = 3600; break;
          case 'd': unit = 86400; break;
          default: refuse(place, text, kRule);
        }
        rest.remove_prefix(1);
      } else if (last_unit != 0) {
        refuse(place, text, kRule);
      }
      if (last_unit != 0 && unit >= last_unit) refuse(place, text, kRule);
      last_unit = unit;
      seconds += value * unit;
    }
  }
  if (!(seconds <= kLongest)) refuse(place, text, "is longer than 31 years");
  return seconds;
}

bool parse_switch(std::string_view text, std::string_view place) {
  for (const std::string_view yes : {"true", "yes", "on", "1"}) {
    if (text == yes) return true;
  }
  for (const std::string_view no : {"false", "no", "off", "0"}) {
    if (text == no) return false;
  }
  refuse(place, text, "is neither true nor false");
}

int parse_choice(std::string_view text, std::span<const std::string_view> words, std::string_view place) {
  std::vector<std::string> candidates;
  std::string list;
  for (size_t i = 0; i < words.size(); ++i) {
    if (words[i] == text) return static_cast<int>(i);
    candidates.emplace_back(words[i]);
    list += concat(i == 0 ? "" : ", ", words[i]);
  }
  refuse(place, text, concat("is not one of ", list, suggestion(text, candidates)));
}

std::string real_text(double value) {
  if (!std::isfinite(value)) return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";  // TOML's spelling; never read back by parse_real
  char buffer[32];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, value);
  std::string text(buffer, result.ptr);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string seconds_text(double seconds) {
  std::string text = real_text(seconds);
  if (text.ends_with(".0")) text.resize(text.size() - 2);
  return text + "s";
}

std::string quote_text(std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  std::string out = "\"";
  for (size_t at = 0, length = 0; at < text.size(); at += length) {
    bool steers = false;
    length = character_length(text, at, steers);
    const auto byte = [&](size_t i) { return static_cast<unsigned>(static_cast<unsigned char>(text[at + i])); };
    if (text[at] == '"' || text[at] == '\\') {
      out += '\\';
      out += text[at];
    } else if (text[at] == '\n') {
      out += "\\n";
    } else if (text[at] == '\t') {
      out += "\\t";
    } else if (steers && (length > 1 || byte(0) < 0x80)) {
      const unsigned code = length == 1   ? byte(0)
                            : length == 2 ? (byte(0) & 31) << 6 | (byte(1) & 63)
                                          : (byte(0) & 15) << 12 | (byte(1) & 63) << 6 | (byte(2) & 63);
      out += "\\u";
      for (int shift = 12; shift >= 0; shift -= 4) out += kHex[code >> shift & 15];
    } else {
      out.append(text, at, length);  // a byte that is no UTF-8 too: the reader refuses it by its place
    }
  }
  return out + '"';
}

}  // namespace heddle
