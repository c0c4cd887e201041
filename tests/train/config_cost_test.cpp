// A configuration is read in time proportional to its text, whatever there is much of.
#include "kernels/api/check.h"
#include "tests/support/cost.h"
#include "train/config/run_config.h"

namespace heddle::test {
namespace {

std::string repeated(size_t n, const std::string& part) {
  std::string out;
  for (size_t i = 0; i < n; ++i) out += part;
  return out;
}

// `n`: at four times it the text still is below what a configuration may have (1 MiB); so the quick ones are read `times` times.
void check_toml(const std::string& name, size_t n, int times, const std::function<std::string(size_t)>& text) {
  REQUIRE(text(4 * n).size() < size_t{1} << 20);
  check_cost("configuration: " + name, n, [&](size_t size) {
    return [made = text(size), times] {
      for (int i = 0; i < times; ++i) {
        RunConfig config;
        try {
          apply_toml(config, made, "config.toml", Source::file);
        } catch (const Error& e) {
          if (e.code() != ExitCode::usage) throw;
        }
      }
    };
  });
}

}  // namespace

TEST_CASE("configuration files: cost in proportion to the text") {
  check_toml("shards", 500, 4, [](size_t n) { return concat("data = [", repeated(n, "\"shards/*.bin\", "), "]\n"); });
  check_toml("a long string", 20000, 16, [](size_t n) { return concat("out = \"", std::string(n, 'x'), "\"\n"); });
  check_toml("escapes", 10000, 16, [](size_t n) { return concat("out = \"", repeated(n, "\\n"), "\"\n"); });
  check_toml("comments", 4000, 16, [](size_t n) { return repeated(n, "# nothing\n"); });
  check_toml("empty lines", 10000, 16, [](size_t n) { return std::string(n, '\n'); });
  check_toml("an unknown key for each line", 1000, 4, [](size_t n) {
    std::string text;
    for (size_t i = 0; i < n; ++i) text += concat("k", i, " = ", i, "\n");
    return text;
  });
  check_toml("an unknown long key", 10000, 16, [](size_t n) { return concat(std::string(n, 'k'), " = 1\n"); });
  check_toml("arrays of numbers", 2000, 8, [](size_t n) { return concat("data = [", repeated(n, "1,"), "]\n"); });
  check_toml("empty arrays", 2000, 8, [](size_t n) { return concat("data = [", repeated(n, "[],"), "]\n"); });
  check_toml("empty tables", 2000, 8, [](size_t n) { return concat("data = [", repeated(n, "{},"), "]\n"); });
  check_toml("dotted keys", 500, 8, [](size_t n) {
    std::string text;
    for (size_t i = 0; i < n; ++i) text += concat("a.k", i, " = 1\n");
    return text;
  });
  check_toml("tables", 500, 8, [](size_t n) {
    std::string text;
    for (size_t i = 0; i < n; ++i) text += concat("[t", i, "]\nk = 1\n");
    return text;
  });
  check_toml("arrays of tables", 1000, 8, [](size_t n) { return repeated(n, "[[t]]\nk = 1\n"); });
}

TEST_CASE("command line and environment: cost in proportion to what is given") {
  check_cost("shards by flag", 100, [](size_t n) {
    return [flags = std::vector<FlagValue>(n, FlagValue{"data", "shards/*.bin"})] { make_run_config("", {}, flags); };
  });
}

}  // namespace heddle::test
