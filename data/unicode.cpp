#include "data/unicode.h"

#include <vector>

#include "data/unicode_tables.h"

namespace heddle::unicode {
namespace {

constexpr uint32_t kCodes = 0x110000;

// One byte a code point: text touches a few pages of it, and a lookup is one load.
std::vector<Class> build_classes() {
  std::vector<Class> classes(kCodes, Class::other);
  const auto mark = [&](const auto& ranges, Class value) {
    for (const CodeRange& range : ranges) {
      for (uint32_t code = range.first; code <= range.last; ++code) classes[code] = value;
    }
  };
  mark(kLetters, Class::letter);
  mark(kNumbers, Class::number);
  mark(kWhiteSpace, Class::space);
  return classes;
}

}  // namespace

Decoded decode(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(text[at + i])); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t left = text.size() - at;
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0) == 0x80; };
  if (lead >= 0xC2 && lead <= 0xDF && left >= 2 && continues(1)) return {(lead & 0x1F) << 6 | (byte(1) & 0x3F), 2};
  if ((lead & 0xF0) == 0xE0 && left >= 3 && continues(1) && continues(2)) {
    const uint32_t code = (lead & 0x0F) << 12 | (byte(1) & 0x3F) << 6 | (byte(2) & 0x3F);
    if (code >= 0x800 && (code < 0xD800 || code > 0xDFFF)) return {code, 3};
  }
  if (lead >= 0xF0 && lead <= 0xF4 && left >= 4 && continues(1) && continues(2) && continues(3)) {
    const uint32_t code = (lead & 0x07) << 18 | (byte(1) & 0x3F) << 12 | (byte(2) & 0x3F) << 6 | (byte(3) & 0x3F);
    if (code >= 0x10000 && code < kCodes) return {code, 4};
  }
  return {};
}

Class classify(uint32_t code) {
  static const std::vector<Class> classes = build_classes();
  return code < kCodes ? classes[code] : Class::other;
}

}  // namespace heddle::unicode
