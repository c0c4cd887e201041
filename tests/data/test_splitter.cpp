#include <cstring>

#include "data/splitter.h"
#include "tests/data/support.h"
#if HEDDLE_HAVE_PCRE2
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#endif

using namespace heddle;
using namespace heddle::test;

namespace {

std::vector<std::string> pieces(SplitRule rule, std::string_view text) {
  std::vector<std::string> found;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(rule, text, begin);
    REQUIRE(end > begin);
    REQUIRE(end <= text.size());
    found.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return found;
}

using Pieces = std::vector<std::string>;

}  // namespace

TEST_CASE("UTF-8 decodes as RFC 3629 says; each invalid byte stands alone", "[unicode]") {
  for (const uint32_t code : {0x0u, 0x7Fu, 0x80u, 0x7FFu, 0x800u, 0xD7FFu, 0xE000u, 0xFFFFu, 0x10000u, 0x10FFFFu}) {
    std::string text;
    append_utf8(text, code);
    const unicode::Decoded decoded = unicode::decode(text, 0);
    CHECK(decoded.code == code);
    CHECK(decoded.length == text.size());
    for (size_t cut = 1; cut < text.size(); ++cut) CHECK(unicode::decode(std::string_view(text).substr(0, cut), 0).code == unicode::kInvalid);
  }
  for (const char* bad : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x80\x80\x80",
                          "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC3(", "\xE4\xB8(", "\xF0\x9F\x98("}) {
    const unicode::Decoded decoded = unicode::decode(bad, 0);
    CHECK(decoded.code == unicode::kInvalid);
    CHECK(decoded.length == 1);
  }
}

TEST_CASE("character classes", "[unicode]") {
  using unicode::Class;
  using unicode::classify;
  for (const uint32_t letter : {0x41u, 0xAAu, 0xE9u, 0x2B0u, 0x5D0u, 0x4E2Du, 0x9FFFu, 0xAC00u, 0xD7A3u, 0x10330u, 0x2A6DFu})
    CHECK(classify(letter) == Class::letter);
  for (const uint32_t number : {0x30u, 0xB2u, 0xBDu, 0x663u, 0x2167u, 0x3007u, 0x1D7CEu}) CHECK(classify(number) == Class::number);
  for (const uint32_t space : {0x9u, 0xDu, 0x20u, 0x85u, 0xA0u, 0x1680u, 0x2003u, 0x2028u, 0x3000u}) CHECK(classify(space) == Class::space);
  for (const uint32_t other : {0x0u, 0x5Fu, 0x300u, 0x180Eu, 0x200Bu, 0xFEFFu, 0x1F600u, 0xE000u, 0x10FFFFu, 0x110000u, unicode::kInvalid}) {
    CHECK(classify(other) == Class::other);
  }
}

TEST_CASE("GPT-2 pieces", "[splitter]") {
  CHECK(pieces(SplitRule::gpt2, "Hello world's  end,\n\nit'll be 42nd!") ==
        Pieces{"Hello", " world", "'s", " ", " end", ",", "\n", "\n", "it", "'ll", " be", " 42", "nd", "!"});
  CHECK(pieces(SplitRule::gpt2, "a   ") == Pieces{"a", "   "});
  CHECK(pieces(SplitRule::gpt2, "a \n b") == Pieces{"a", " \n", " b"});
  CHECK(pieces(SplitRule::gpt2, "'S 'something '") == Pieces{"'", "S", " '", "something", " '"});
  CHECK(pieces(SplitRule::gpt2, "\xFF\xC3(x") == Pieces{"\xFF\xC3(", "x"});
  CHECK(pieces(SplitRule::none, "a b c") == Pieces{"a b c"});
}

TEST_CASE("cl100k and Qwen2 pieces", "[splitter]") {
  CHECK(pieces(SplitRule::cl100k, "I'LL take 12345 (of)\r\n\n  it.\n") ==
        Pieces{"I", "'LL", " take", " ", "123", "45", " (", "of", ")\r\n\n", " ", " it", ".\n"});
  CHECK(pieces(SplitRule::qwen2, "x1234") == Pieces{"x", "1", "2", "3", "4"});
  CHECK(pieces(SplitRule::cl100k, "a \n \n  b") == Pieces{"a", " \n \n", " ", " b"});
  CHECK(pieces(SplitRule::cl100k, "\tword\n") == Pieces{"\tword", "\n"});
}

#if HEDDLE_HAVE_PCRE2
namespace {

// The published expression run by PCRE2 (UTF, UCP). Its \s takes U+180E for white space, which Unicode's White_Space does not, so the class is
// spelled out. Invalid bytes go in as U+FFFD, a character of the same class.
class Oracle {
 public:
  explicit Oracle(std::string expression) {
    replace(expression, "[^\\s", "[^\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}");
    replace(expression, "\\s", "[\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}]");
    replace(expression, "\\S", "[^\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}]");
    int error = 0;
    PCRE2_SIZE at = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.c_str()), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &error, &at, nullptr);
    REQUIRE(code_ != nullptr);
    match_ = pcre2_match_data_create_from_pattern(code_, nullptr);
  }
  ~Oracle() {
    pcre2_match_data_free(match_);
    pcre2_code_free(code_);
  }

  Pieces split(const std::string& text) const {
    std::string valid;
    std::vector<size_t> origin;  // of each byte of `valid`
    for (size_t at = 0; at < text.size();) {
      const unicode::Decoded decoded = unicode::decode(text, at);
      std::string character = decoded.code == unicode::kInvalid ? "\xEF\xBF\xBD" : text.substr(at, decoded.length);
      origin.insert(origin.end(), character.size(), at);
      valid += character;
      at += decoded.length;
    }
    origin.push_back(text.size());
    Pieces found;
    for (size_t at = 0; at < valid.size();) {
      const int count =
          pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(valid.data()), valid.size(), at, PCRE2_ANCHORED | PCRE2_NO_UTF_CHECK, match_, nullptr);
      REQUIRE(count > 0);
      const size_t end = pcre2_get_ovector_pointer(match_)[1];
      found.push_back(text.substr(origin[at], origin[end] - origin[at]));
      at = end;
    }
    return found;
  }

 private:
  static void replace(std::string& text, const std::string& what, const std::string& by) {
    for (size_t at = 0; (at = text.find(what, at)) != std::string::npos; at += by.size()) text.replace(at, what.size(), by);
  }
  pcre2_code* code_ = nullptr;
  pcre2_match_data* match_ = nullptr;
};

}  // namespace

TEST_CASE("split rules agree with their regular expressions under PCRE2", "[splitter]") {
  const std::pair<SplitRule, const char*> rules[] = {
      {SplitRule::gpt2, R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"},
      {SplitRule::cl100k, R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
      {SplitRule::qwen2, R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}};
  for (const auto& [rule, expression] : rules) {
    const Oracle oracle(expression);
    std::mt19937_64 random(11);
    for (int trial = 0; trial < 6000; ++trial) {
      const std::string text = random_text(random, 1 + random() % 30, trial % 2 == 1);
      INFO("rule " << static_cast<int>(rule) << ", text '" << text << "'");
      REQUIRE(pieces(rule, text) == oracle.split(text));
    }
    // Every code point below U+3000, and some above, between two letters.
    for (uint32_t code = 1; code < 0x3000; ++code) {
      std::string text = "a";
      append_utf8(text, code);
      text += "b";
      INFO("rule " << static_cast<int>(rule) << ", code point " << code);
      REQUIRE(pieces(rule, text) == oracle.split(text));
    }
  }
}
#endif
