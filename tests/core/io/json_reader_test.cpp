#include "core/io/json_reader.h"

#include <vector>

#include "tests/support/catch.h"

namespace heddle {
namespace {

std::string read_string(std::string_view text) {
  return JsonReader(text, "t").string(100);
}

std::string refusal(const std::function<void(JsonReader&)>& read, std::string_view text, uint64_t base = 0) {
  JsonReader json(text, "file", base);
  try {
    read(json);
  } catch (const Error& e) {
    CHECK(e.code() == ExitCode::bad_data);
    return e.what();
  }
  return {};
}

}  // namespace

TEST_CASE("JsonReader: objects, arrays, numbers, strings") {
  JsonReader json(" { \"a\" : [1, 2 ,18446744073709551615] , \"b\":{}, \"c\":[] }\n", "t");
  std::string key;
  std::vector<uint64_t> numbers;
  json.begin_object();
  REQUIRE(json.next_key(key));
  CHECK(key == "a");
  json.begin_array();
  while (json.next_item()) numbers.push_back(json.u64());
  CHECK(numbers == std::vector<uint64_t>{1, 2, UINT64_MAX});
  REQUIRE(json.next_key(key));
  json.begin_object();
  CHECK(!json.next_key(key));
  REQUIRE(json.next_key(key));
  json.begin_array();
  CHECK(!json.next_item());
  CHECK(!json.next_key(key));
  json.end();
}

TEST_CASE("JsonReader: every escape, and UTF-8 from one to four bytes") {
  CHECK(read_string(R"("\"\\\/\b\f\n\r\t")") == "\"\\/\b\f\n\r\t");
  CHECK(read_string(R"("\u0041\u00e9\u20ac\ud83d\ude00")") == "A\u00e9\u20ac\U0001F600");
  CHECK(read_string("\"\u00e9\u20ac\U0001F600\"") == "\u00e9\u20ac\U0001F600");
}

TEST_CASE("JsonReader: what is refused, and where") {
  const auto string = [](JsonReader& j) { j.string(8); };
  const auto number = [](JsonReader& j) { j.u64(); };
  for (const char* bad : {"\"open", "\"a\nb\"", "\"\\x\"", "\"\\u12g4\"", "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\\", "\"123456789\"",
                          "7", "\"\xff\"", "\"\xc0\xaf\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\""}) {
    INFO(bad);
    CHECK(!refusal(string, bad).empty());
  }
  for (const char* bad : {"", "-1", "01", "1.5", "1e3", "18446744073709551616", "\"1\"", "null", "true"}) {
    INFO(bad);
    CHECK(!refusal(number, bad).empty());
  }
  const auto keys = [](JsonReader& j) {
    std::string key;
    j.begin_object();
    while (j.next_key(key)) j.u64();
    j.end();
  };
  for (const char* bad : {"", "{", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"a\":1,}", "{,}", "{\"a\":1 \"b\":2}", "{a:1}", "{\"a\":1}}", "{\"a\":1} x",
                          "{\"a\" 1}", "[1]"}) {
    INFO(bad);
    CHECK(!refusal(keys, bad).empty());
  }
  const auto items = [](JsonReader& j) {
    j.begin_array();
    while (j.next_item()) j.u64();
    j.end();
  };
  for (const char* bad : {"[", "[1", "[1,", "[1,]", "[,1]", "[1 2]"}) {
    INFO(bad);
    CHECK(!refusal(items, bad).empty());
  }
  CHECK(refusal(keys, "{\"a\":1,\"b\":x}", 8).find("file byte 19") != std::string::npos);
}

}  // namespace heddle
