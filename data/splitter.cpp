#include "data/splitter.h"

#include <array>

#include "data/unicode.h"

namespace heddle {
namespace {

using unicode::Class;

constexpr std::array<Class, 128> ascii_classes() {
  std::array<Class, 128> classes{};
  for (int c = 0; c < 128; ++c) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    const bool space = c == ' ' || (c >= '\t' && c <= '\r');
    classes[static_cast<size_t>(c)] = letter ? Class::letter : c >= '0' && c <= '9' ? Class::number : space ? Class::space : Class::other;
  }
  return classes;
}
constexpr std::array<Class, 128> kAscii = ascii_classes();

struct Character {
  Class kind;
  uint32_t length;
};

inline Character character(std::string_view text, size_t at) {
  const unsigned char byte = static_cast<unsigned char>(text[at]);
  if (byte < 128) return {kAscii[byte], 1};
  const unicode::Decoded decoded = unicode::decode(text, at);
  return {unicode::classify(decoded.code), decoded.length};
}

// The end of the run of `kind` that begins at `at`.
inline size_t run_end(std::string_view text, size_t at, Class kind) {
  while (at < text.size()) {
    const Character next = character(text, at);
    if (next.kind != kind) break;
    at += next.length;
  }
  return at;
}

// 's 't 'm 'd 're 've 'll at `at`, where an apostrophe stands; 0 when none does.
size_t contraction(std::string_view text, size_t at, bool fold_case) {
  const auto letter = [&](size_t i) -> char {
    if (at + i >= text.size()) return 0;
    const char c = text[at + i];
    return fold_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  };
  const char a = letter(1), b = letter(2);
  if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
  if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
  // U+017F LATIN SMALL LETTER LONG S folds to s; no other letter of the list has a foreign equal.
  if (fold_case && text.substr(at + 1, 2) == "\xC5\xBF") return 3;
  return 0;
}

// \s+(?!\S)|\s+ : the whole run at the end of the text, else the run without its last character, which joins what follows.
size_t space_end(std::string_view text, size_t begin) {
  size_t at = begin, last = begin;
  while (at < text.size()) {
    const Character next = character(text, at);
    if (next.kind != Class::space) break;
    last = at;
    at += next.length;
  }
  return at == text.size() || last == begin ? at : last;
}

size_t gpt2_end(std::string_view text, size_t begin) {
  if (text[begin] == '\'') {
    if (const size_t length = contraction(text, begin, false)) return begin + length;
  }
  const size_t at = begin + (text[begin] == ' ' ? 1 : 0);
  if (at < text.size()) {
    const Character first = character(text, at);
    if (first.kind != Class::space) return run_end(text, at + first.length, first.kind);
  }
  return space_end(text, begin);
}

size_t cl100k_end(std::string_view text, size_t begin, int digits) {
  const char c = text[begin];
  if (c == '\'') {
    if (const size_t length = contraction(text, begin, true)) return begin + length;
  }
  const auto is_newline = [&](size_t i) { return text[i] == '\r' || text[i] == '\n'; };
  const Character first = character(text, begin);
  size_t at = begin + first.length;
  if (first.kind == Class::letter) return run_end(text, at, Class::letter);
  if (first.kind == Class::number) {
    for (int i = 1; i < digits && at < text.size(); ++i) {
      const Character next = character(text, at);
      if (next.kind != Class::number) break;
      at += next.length;
    }
    return at;
  }
  // One character of any other kind but a line break may lead a word.
  if (!is_newline(begin) && at < text.size()) {
    const Character next = character(text, at);
    if (next.kind == Class::letter) return run_end(text, at + next.length, Class::letter);
  }
  const size_t other = begin + (c == ' ' ? 1 : 0);
  if (other < text.size() && character(text, other).kind == Class::other) {
    at = run_end(text, other, Class::other);
    while (at < text.size() && is_newline(at)) ++at;
    return at;
  }
  // White space from here on. \s*[\r\n]+ ends behind the last line break of the run.
  const size_t run = run_end(text, begin, Class::space);
  for (size_t i = run; i > begin; --i) {
    if (is_newline(i - 1)) return i;
  }
  return space_end(text, begin);
}

}  // namespace

size_t piece_end(SplitRule rule, std::string_view text, size_t begin) {
  switch (rule) {
    case SplitRule::none: return text.size();
    case SplitRule::gpt2: return gpt2_end(text, begin);
    case SplitRule::cl100k: return cl100k_end(text, begin, 3);
    case SplitRule::qwen2: return cl100k_end(text, begin, 1);
  }
  return text.size();
}

}  // namespace heddle
