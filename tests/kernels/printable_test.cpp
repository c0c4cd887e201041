#include "kernels/api/printable.h"

#include <random>

#include "kernels/api/check.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

bool steers(const std::string& text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x20 || c == 0x7f) return true;
    if (c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0) return true;
    if (c >= 0x80 && c < 0xc0 && (i == 0 || static_cast<unsigned char>(text[i - 1]) < 0x80))
      return true;  // a byte that continues nothing: C1 in Latin-1
  }
  return false;
}

}  // namespace

TEST_CASE("printable: plain text stays, what steers a terminal does not") {
  CHECK(printable("a b/c.bin: \"x\" \\n \u00e9 \u20ac \U0001F600") == "a b/c.bin: \"x\" \\n \u00e9 \u20ac \U0001F600");
  CHECK(printable("\x1b[31mred\x1b[0m") == "\\x1b[31mred\\x1b[0m");
  CHECK(printable("a\nb\tc\rd\x7f") == "a\\nb\\tc\\rd\\x7f");
  CHECK(printable(std::string_view("a\0b", 3)) == "a\\x00b");
  CHECK(printable("\u009b31m") == "\\xc2\\x9b31m");  // CSI as one character
  CHECK(printable("\x9b"
                  "31m") == "\\x9b31m");                          // and as one byte
  CHECK(printable("\xff\xe2\x82") == "\\xff\\xe2\\x82");          // no UTF-8
  CHECK(printable("gpj.\u202eexe") == "gpj.\\xe2\\x80\\xaeexe");  // reads backwards
  CHECK(printable("\u2066x\u2069\u200f") == "\\xe2\\x81\\xa6x\\xe2\\x81\\xa9\\xe2\\x80\\x8f");
  CHECK(printable("") == "");
}

TEST_CASE("printable: line breaks of a message stay, those of a value do not") {
  CHECK(printable("list:\n  one\n  two\n", true) == "list:\n  one\n  two\n");
  CHECK(printable("name\nheddle: [forged] all is well", true) == "name\\nheddle: [forged] all is well");
  CHECK(printable("list:\n  one\n  two\n") == "list:\\n  one\\n  two\\n");
}

TEST_CASE("printable: any bytes, once and twice") {
  std::mt19937 random(7);
  const std::string pieces[] = {"\n", "\n  ", "\x1b", "\xc2", "\x9b", "\xe2\x80", "\xe2\x80\xae", "\xf0\x9f\x98\x80", "a", " ", "\\", "\x7f", "\x80"};
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (size_t n = random() % 8; n > 0; --n)
      text += random() % 4 == 0 ? std::string(1, static_cast<char>(random())) : pieces[random() % std::size(pieces)];
    const std::string once = printable(text);
    INFO(once);
    CHECK(!steers(once));
    CHECK(printable(once) == once);
    const std::string lines = printable(text, true);
    CHECK(printable(lines, true) == lines);
  }
}

TEST_CASE("counted: one of a thing, or several, or none") {
  CHECK(counted(0, "step") == "0 steps");
  CHECK(counted(1, "step") == "1 step");
  CHECK(counted(uint64_t{1}, "micro-step") == "1 micro-step");
  CHECK(counted(2, "step") == "2 steps");
  CHECK(counted(-1, "step") == "-1 steps");
  CHECK(plural(int64_t{1} << 40, " sample") == " samples");
}

TEST_CASE("errors: what was thrown can be shown") {
  const std::string name = "shard\x1b[2J\nheddle: done";
  try {
    fail("data", concat(name, ": is missing\n  in ", name));
  } catch (const Error& e) {
    const std::string text = e.what();
    CHECK(text.rfind("[data] shard\\x1b[2J\\nheddle: done: is missing\n  in shard\\x1b[2J\\nheddle: done", 0) == 0);
  }
}

}  // namespace heddle
