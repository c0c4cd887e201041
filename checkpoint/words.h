// Messages between ranks: words separated by single spaces or newlines. Not streams, because those hide a failed allocation and go on.
#pragma once

#include <charconv>
#include <string>
#include <string_view>

#include "kernels/api/check.h"

namespace heddle {

class Words {
 public:
  explicit Words(std::string_view text) : rest_(text) {}
  bool done() const { return rest_.empty(); }

  std::string_view word() {
    const size_t n = rest_.find_first_of(" \n");
    const std::string_view w = rest_.substr(0, n);
    rest_.remove_prefix(n == rest_.npos ? rest_.size() : n + 1);
    return w;
  }
  template <class Number>
  Number number() {
    const std::string_view w = word();
    Number value = 0;
    const auto [end, error] = std::from_chars(w.data(), w.data() + w.size(), value);
    if (w.empty() || error != std::errc() || end != w.data() + w.size()) fail("checkpoint", "another rank sent a malformed message");
    return value;
  }

 private:
  std::string_view rest_;
};

template <class Number>
void append_number(std::string& out, Number value, char separator) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  out.append(digits, static_cast<size_t>(end - digits));
  out += separator;
}

}  // namespace heddle
