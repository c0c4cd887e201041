#include "train/config/values.h"

#include "tests/support/catch.h"
#include "tests/train/expect_error.h"

namespace heddle {
namespace {

TEST_CASE("counts are exact or refused") {
  const auto is = [](const char* text, int64_t value) {
    INFO(text);
    CHECK(parse_count(text, "--x") == value);
  };
  is("0", 0);
  is("007", 7);
  is("4096", 4096);
  is("512k", 524288);
  is("1K", 1024);
  is("1M", 1048576);
  is("2G", int64_t{2} << 30);
  is("1.5k", 1536);
  is("0.0009765625k", 1);
  is("1e9", 1000000000);
  is("1E+3", 1000);
  is("1.25e2", 125);
  is("1000e-3", 1);
  is("0e400", 0);
  is("0.0", 0);
  is("9223372036854775807", INT64_MAX);
  is("9.223372036854775807e18", INT64_MAX);
  is("8589934591G", int64_t{8589934591} << 30);
  is("100000000000000000000e-2", 1000000000000000000);
  for (const char* text : {"",
                           "-1",
                           "+1",
                           " 1",
                           "1 ",
                           "1.5",
                           "1e-3",
                           "1.",
                           ".5",
                           "1m",
                           "1g",
                           "1kk",
                           "0x10",
                           "1e",
                           "1e+",
                           "1e1.5",
                           "nan",
                           "inf",
                           "1_000",
                           "1,000",
                           "0.1k",
                           "1e401",
                           "9223372036854775808",
                           "8589934592G",
                           "1e19",
                           "99999999999999999999999999999999999999999999999999",
                           "1e400"}) {
    INFO(text);
    expect_error([&] { parse_count(text, "--x"); }, ExitCode::usage, {"--x", quote_text(text)});
  }
  expect_error([] { parse_count(std::string(500, '9'), "--x"); }, ExitCode::usage, {"--x"});
}

TEST_CASE("reals are finite and whole words") {
  CHECK(parse_real("3e-4", "--lr") == 3e-4);
  CHECK(parse_real("-2", "--lr") == -2);
  CHECK(parse_real("1", "--lr") == 1);
  for (const char* text : {"", "x", "1x", "nan", "inf", "-inf", "1e999", "1e-999", " 1", "+1", "0x1p3", "1,5"}) {
    INFO(text);
    expect_error([&] { parse_real(text, "--lr"); }, ExitCode::usage, {"--lr"});
  }
}

TEST_CASE("durations") {
  const auto is = [](const char* text, double seconds) {
    INFO(text);
    CHECK(parse_duration(text, "--t") == seconds);
  };
  is("90", 90);
  is("90s", 90);
  is("1.5h", 5400);
  is("1h30m", 5400);
  is("2d", 172800);
  is("01:30:00", 5400);
  is("00:59:59", 3599);
  is("1-12:00:00", 129600);
  is("0", 0);
  for (const char* text :
       {"", "h", "1x", "30m1h", "1h30", "1:30", "1:99:00", "1:60:00", "1:00:60", "-5", "1-2", "1h-3m", "1e99", "inf", "1:2:3:4", "1h1h"}) {
    INFO(text);
    expect_error([&] { parse_duration(text, "--t"); }, ExitCode::usage, {"--t"});
  }
}

TEST_CASE("switches and choices") {
  for (const char* yes : {"true", "yes", "on", "1"}) CHECK(parse_switch(yes, "--b"));
  for (const char* no : {"false", "no", "off", "0"}) CHECK(!parse_switch(no, "--b"));
  for (const char* text : {"", "TRUE", "2", "maybe"}) expect_error([&] { parse_switch(text, "--b"); }, ExitCode::usage, {"--b"});
  constexpr std::string_view kWords[] = {"cosine", "linear"};
  CHECK(parse_choice("linear", kWords, "--s") == 1);
  expect_error([&] { parse_choice("cosin", kWords, "--s"); }, ExitCode::usage, {"cosine, linear", "did you mean cosine?"});
}

TEST_CASE("the nearest match is near") {
  const std::vector<std::string> names = {"total-batch-tokens", "lr", "layers", "weight-decay", "seq"};
  CHECK(nearest_match("total_batch_token", names) == "total-batch-tokens");
  CHECK(nearest_match("lrr", names) == "lr");
  CHECK(nearest_match("layesr", names) == "layers");
  CHECK(nearest_match("wieght-decay", names) == "weight-decay");
  CHECK(nearest_match("completely-different", names).empty());
  CHECK(nearest_match("", names).empty());
  CHECK(nearest_match(std::string(10000, 'l'), names).empty());
}

TEST_CASE("text is quoted so that TOML and JSON read it back") {
  CHECK(quote_text("a\"b\\c\nd\te\x01\x7f") == "\"a\\\"b\\\\c\\nd\\te\\u0001\\u007f\"");
  CHECK(real_text(1) == "1.0");
  CHECK(real_text(1e-8) == "1e-08");
  CHECK(seconds_text(5400) == "5400s");
  for (const double seconds : {0.0, 1e-5, 0.001, 0.25, 5400.0, 123456.789, 1e9}) CHECK(parse_duration(seconds_text(seconds), "x") == seconds);
}

}  // namespace
}  // namespace heddle
