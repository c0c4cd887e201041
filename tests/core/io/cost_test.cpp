// Every reader of core/io takes time in proportion to its input, whatever the input holds much of.
#include "tests/support/cost.h"
#include "core/io/json_reader.h"
#include "core/io/safetensors.h"
#include "core/io/strict_json.h"

namespace heddle::test {
namespace {

// "[" part "," part ... "]", with N standing for a number of its own in each.
std::string many(size_t n, const std::string& open, const std::string& part, const std::string& close) {
  std::string out = open;
  for (size_t i = 0; i < n; ++i) {
    if (i > 0) out += ',';
    const size_t at = part.find('N');
    out += at == part.npos ? part : part.substr(0, at) + std::to_string(i) + part.substr(at + 1);
  }
  return out + close;
}

void check_json(const std::string& name, const std::string& open, const std::string& part, const std::string& close) {
  check_cost("JSON: " + name, 500, [&](size_t n) { return [text = many(n, open, part, close)] { parse_strict_json(text, "t", size_t{1} << 30); }; });
}

}  // namespace

TEST_CASE("strict JSON: much of any kind of value, in time proportional to the text") {
  check_json("empty objects in an array", "[", "{}", "]");
  check_json("empty arrays in an array", "[", "[]", "]");
  check_json("numbers in an array", "[", "1", "]");
  check_json("objects with members in an array", "[", "{\"a\":1,\"b\":[2,3]}", "]");
  check_json("empty objects by key", "{", "\"kN\":{}", "}");
  check_json("strings by key", "{", "\"kN\":\"v\"", "}");
  check_json("pairs far down", std::string(30, '['), "[\"a\",\"b\"]", std::string(30, ']'));
}

TEST_CASE("strict JSON: one long string, one long number, much white space") {
  check_cost("a string", 20000,
             [](size_t n) { return [text = concat("\"", std::string(n, 'x'), "\"")] { parse_strict_json(text, "t", size_t{1} << 30); }; });
  check_cost("escapes", 20000, [](size_t n) {
    std::string text = "\"";
    for (size_t i = 0; i < n; ++i) text += "\\u00e9";
    return [text = concat(text, "\"")] { parse_strict_json(text, "t", size_t{1} << 30); };
  });
  check_cost("white space", 20000,
             [](size_t n) { return [text = concat("1", std::string(n, ' '))] { parse_strict_json(text, "t", size_t{1} << 30); }; });
}

TEST_CASE("safetensors header: tensors, metadata, dimensions") {
  check_cost("tensors", 500, [](size_t n) {
    return [text = many(n, "{", "\"blocks.N.w\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[0,0]}", "}")] {
      parse_safetensors_header(text, text.size() + 8, "t");
    };
  });
  check_cost("metadata", 500, [](size_t n) {
    return [text = many(n, "{\"__metadata__\":{", "\"kN\":\"v\"", "}}")] { parse_safetensors_header(text, text.size() + 8, "t"); };
  });
  check_cost("a layout", 500, [](size_t n) {
    return [n] {
      std::vector<FileTensor> tensors;
      for (size_t i = 0; i < n; ++i) tensors.push_back({concat("t", i), FileType::F32, {2, 3}});
      write_safetensors_header(layout_safetensors(std::move(tensors), {}));
    };
  });
}

TEST_CASE("strict JSON: duplicates and depth are refused at every level") {
  const auto refusal = [](const std::string& text) -> std::string {
    try {
      parse_strict_json(text, "t");
    } catch (const Error& e) {
      CHECK(e.code() == ExitCode::bad_data);
      return e.what();
    }
    return {};
  };
  for (const char* text : {R"({"a":1,"a":1})", R"([{"b":{"a":{},"a":[]}}])", R"({"a":{"a":1},"b":{"a":1,"c":[{}],"a":2}})"}) {
    INFO(text);
    CHECK(refusal(text).find("key \"a\" appears twice in one object") != std::string::npos);
  }
  CHECK(refusal(R"({"a":{"a":[{"a":1},{"a":2}]},"b":{"a":1}})").empty());
  CHECK(refusal(std::string(32, '[') + std::string(32, ']')).empty());
  CHECK(refusal(std::string(33, '[') + std::string(33, ']')).find("deeper than 32") != std::string::npos);
  CHECK(refusal("{\"a\":" + std::string(100000, '[')).find("deeper than 32") != std::string::npos);
  for (const char* text : {"", "[", "[1", "[1,", "{\"a\"", "{\"a\":", "1 2", "[1]]", "\"\xff\"", "1e999", "nul", "{1:2}", "\"\x01\""}) {
    INFO(text);
    CHECK(!refusal(text).empty());
  }
  const nlohmann::json value = parse_strict_json(R"({"n":null,"t":true,"i":-3,"u":18446744073709551615,"d":1.5,"s":"\u00e9","a":[[],{},[1]]})", "t");
  CHECK(value == nlohmann::json({{"n", nullptr},
                                 {"t", true},
                                 {"i", -3},
                                 {"u", UINT64_MAX},
                                 {"d", 1.5},
                                 {"s", "\u00e9"},
                                 {"a", {nlohmann::json::array(), nlohmann::json::object(), {1}}}}));
}

}  // namespace heddle::test
