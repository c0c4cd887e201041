#include "train/config/run_config.h"

#include <algorithm>
#include <fstream>
#include <set>

#include "kernels/api/check.h"
#include "tests/data/support.h"
#include "tests/support/catch.h"
#include "tests/train/config_support.h"
#include "tests/train/expect_error.h"

namespace heddle {
namespace {

using Strings = std::vector<std::string>;
using test::from_flags;
using test::other_value;

// Judged as a start would, without what only a launch or data can say.
void judge(const std::vector<FlagValue>& flags) {
  RunConfig config = from_flags(flags);
  validate(config);
}

TEST_CASE("every option has one unique name, a help text, and a group that stays together") {
  std::set<std::string_view> names, closed;
  std::string_view group;
  for (const auto& o : RunConfig::options()) {
    INFO(o.name);
    CHECK(names.insert(o.name).second);
    CHECK(!o.help.empty());
    CHECK(o.value.empty() == o.is_switch());
    if (o.group != group) {
      CHECK(closed.insert(o.group).second);
      group = o.group;
    }
  }
}

TEST_CASE("flags, environment and file give every option the same value") {
  for (const auto& o : RunConfig::options()) {
    INFO(o.name);
    const std::string text = other_value(o, RunConfig{});
    const RunConfig flag = from_flags({{std::string(o.name), text}});
    CHECK(o.toml_text(flag) != o.toml_text(RunConfig{}));
    CHECK(flag.source(o.name) == Source::flag);
    CHECK(flag.is_set(o.name));
    const Strings environment = {environment_name(o.name) + "=" + text, "PATH=/bin"};
    const RunConfig variable = make_run_config("", environment, {});
    CHECK(o.toml_text(variable) == o.toml_text(flag));
    CHECK(variable.source(o.name) == Source::environment);
    if (!o.in_file) continue;
    RunConfig file;
    apply_toml(file, std::string(o.name) + " = " + o.toml_text(flag) + "\n", "f.toml", Source::file);
    CHECK(o.toml_text(file) == o.toml_text(flag));
    CHECK(file.origins.at(std::string(o.name)).place == "f.toml:1");
  }
}

TEST_CASE("a configuration written as TOML reads back the same") {
  RunConfig config;
  for (const auto& o : RunConfig::options()) {
    if (o.in_file && o.name != "tokens" && o.name != "depth") config.set(o.name, other_value(o, config), Source::flag, "--" + std::string(o.name));
  }
  config.set("data", "second", Source::flag, "--data");
  const std::string text = to_toml(config, true);
  RunConfig back;
  apply_toml(back, text, "config.toml", Source::file);
  for (const auto& o : RunConfig::options()) {
    INFO(o.name);
    CHECK(o.toml_text(back) == o.toml_text(config));
  }
  CHECK(back.data.size() == 2);
  // What one launch was told is a note for people.
  RunConfig later;
  apply_toml(later, to_toml(config), "config.toml", Source::file);
  for (const auto& o : RunConfig::options()) {
    INFO(o.name);
    CHECK(o.toml_text(later) == o.toml_text(o.launch ? RunConfig{} : config));
  }
  for (const double value : {0.1, 1e-8, 3e-4, 1.0, 123456789.125, 5e-324}) CHECK(parse_real(real_text(value), "x") == value);
}

TEST_CASE("file, environment and flags override one another in this order") {
  RunConfig config;
  apply_toml(config, "lr = 1e-3\nsteps = 10\nbatch = 4\ndata = ['a', 'b']\n", "f", Source::file);
  CHECK(config.data == Strings{"a", "b"});
  config.set("lr", "2e-3", Source::environment, "HEDDLE_LR");
  config.set("lr", "3e-3", Source::flag, "--lr");
  config.set("data", "c", Source::flag, "--data");
  config.set("data", "d", Source::flag, "--data");
  CHECK(config.lr == 3e-3);
  CHECK(config.steps == 10);
  CHECK(config.data == Strings{"c", "d"});
  CHECK(config.origin_text("lr") == "--lr");
  CHECK(config.origin_text("steps") == "f:2");
  CHECK(config.origin_text("seed") == "default");
  config.mark_derived("dim", "depth 12");
  CHECK(config.origin_text("dim") == "from depth 12");
  CHECK(!config.is_set("dim"));
}

TEST_CASE("of two ways to say one thing the higher source stands") {
  const Strings environment = {"HEDDLE_TOKENS=1M"};
  const RunConfig c = make_run_config("", environment, std::vector<FlagValue>{{"steps", "100"}});
  CHECK(c.steps == 100);
  CHECK(c.tokens == 0);
  CHECK(!c.is_set("tokens"));
  expect_error([] { judge({{"steps", "1"}, {"tokens", "1"}}); }, ExitCode::usage, {"--steps", "--tokens", "one"});
  expect_error([] { judge({{"steps", "1"}, {"minutes", "2"}}); }, ExitCode::usage, {"--steps 1 and --minutes 2.0 ", "one"});
  expect_error([] { judge({{"minutes", "2"}, {"tokens", "1"}}); }, ExitCode::usage, {"--tokens 1 and --minutes 2.0 ", "one"});
  const RunConfig m = make_run_config("", environment, std::vector<FlagValue>{{"minutes", "5"}});
  CHECK(m.minutes == 5);
  CHECK(m.tokens == 0);
}

TEST_CASE("unknown names are refused with the nearest match") {
  expect_error([] { make_run_config("", Strings{"HEDDLE_LEARNING=1"}, {}); }, ExitCode::usage, {"HEDDLE_LEARNING"});
  expect_error([] { make_run_config("", Strings{"HEDDLE_TOTAL_BATCH_TOKEN=1"}, {}); }, ExitCode::usage, {"HEDDLE_TOTAL_BATCH_TOKENS?"});
  RunConfig c;
  expect_error([&] { apply_toml(c, "\n\nweight_decay = 1\n", "a/b.toml", Source::file); }, ExitCode::usage, {"a/b.toml:3:", "weight-decay?"});
  expect_error([&] { apply_toml(c, "[model]\ndim = 3\n", "f.toml", Source::file); }, ExitCode::usage, {"f.toml:1", "flat"});
  expect_error([&] { apply_toml(c, "dry-run = true", "f.toml", Source::file); }, ExitCode::usage, {"unknown key"});
  CHECK_NOTHROW(make_run_config("", Strings{"HEDDLE_CONFIG="}, {}));
}

TEST_CASE("file errors name file, line, key and kind") {
  RunConfig c;
  const auto refused = [&](const char* text, std::vector<std::string> parts) {
    INFO(text);
    expect_error([&] { apply_toml(c, text, "f.toml", Source::file); }, ExitCode::usage, std::move(parts));
  };
  refused("lr = 'x'", {"f.toml:1: lr", "expected a number", "string"});
  refused("lr = true", {"f.toml:1: lr", "boolean"});
  refused("bias = 1", {"bias", "true or false"});
  refused("model = 7", {"model", "a string"});
  refused("data = [1]", {"data", "a string"});
  refused("steps = [1]", {"steps", "a number"});
  refused("steps = -5", {"f.toml:1: steps", "-5"});
  refused("steps = 1.5", {"f.toml:1: steps", "1.5"});
  refused("lr = nan", {"lr", "finite"});
  refused("lr = inf", {"lr", "finite"});
  refused("steps = 99999999999999999999", {"f.toml:1"});
  refused("seed = 1\nseed = 2", {"f.toml:2"});
  refused("seed = ", {"f.toml:1"});
  refused("zero = 4", {"f.toml:1: zero", "from 0 to 1"});
  refused("optimizer = 'adamm'", {"optimizer", "adamw?"});
  refused("config-version = 2", {"config-version"});
  CHECK_NOTHROW(apply_toml(c, "config-version = 1\nsteps = 1e9\ntime-limit = '2h'\neval-tokens = '1M'\n", "f", Source::file));
  CHECK(c.steps == 1000000000);
  CHECK(c.time_limit == 7200);
  CHECK(RunConfig::option("time-limit").toml_text(c) == "\"7200s\"");
  CHECK(c.eval_tokens == 1 << 20);
  expect_error([&] { apply_toml_file(c, "/nonexistent/run.toml", Source::file); }, ExitCode::usage, {"/nonexistent/run.toml"});
  expect_error([&] { apply_toml_file(c, "/", Source::file); }, ExitCode::usage, {"directory"});
}

TEST_CASE("impossible combinations have one clear message") {
  const auto refused = [](std::vector<FlagValue> flags, std::vector<std::string> parts) {
    INFO(parts.front());
    expect_error([&] { judge(flags); }, ExitCode::usage, std::move(parts));
  };
  refused({{"model", "gpt2"}, {"depth", "4"}}, {"--model gpt2", "--depth 4"});
  refused({{"total-batch-tokens", "500000"}, {"seq", "1024"}, {"batch", "8"}, {"dp", "4"}},
          {"--total-batch-tokens 500000", "32768", "491520", "524288"});
  refused({{"total-batch-tokens", "100"}}, {"--total-batch-tokens 100", "8192"});
  refused({{"world", "4"}}, {"--dry-run"});
  refused({{"world", "6"}, {"dry-run", "true"}, {"tp", "4"}}, {"--world 6", "--tp 4"});
  refused({{"world", "6"}, {"dry-run", "true"}, {"tp", "2"}, {"dp", "2"}}, {"--dp 2", "= 4"});
  refused({{"sp", "true"}}, {"--sp", "--tp"});
  refused({{"heads", "6"}, {"tp", "4"}}, {"--heads 6", "--tp 4"});
  refused({{"kv-heads", "3"}, {"heads", "6"}, {"tp", "2"}}, {"--kv-heads 3", "--tp 2"});
  refused({{"mlp-dim", "5"}, {"tp", "2"}}, {"--mlp-dim 5"});
  refused({{"deterministic", "true"}, {"grad-reduce", "bf16"}}, {"--deterministic", "--grad-reduce bf16"});
  refused({{"muon-lr", "0.1"}}, {"--muon-lr", "--optimizer muon"});
  refused({{"decay-fraction", "0.5"}}, {"--decay-fraction", "wsd"});
  refused({{"rope-theta", "500000"}}, {"--rope-theta", "--position rope"});
  refused({{"steps", "10"}, {"warmup", "11"}}, {"--warmup 11", "--steps 10"});
  refused({{"eval-every", "10"}}, {"--eval-every 10", "--val"});
  refused({{"eval-tokens", "10"}}, {"--eval-tokens 10", "--val"});
  refused({{"sample-prompt", "x"}}, {"--sample-every"});
  refused({{"sample-tokens", "9"}}, {"--sample-tokens 9", "--sample-every"});
  refused({{"head-lr-scale", "2"}}, {"--head-lr-scale 2", "--no-tied"});
  refused({{"keep-every", "10"}, {"save-every", "0"}}, {"--keep-every 10", "--save-every"});
  refused({{"kernel", "matmul"}}, {"--kernel matmul", "OP=NAME"});
  CHECK_NOTHROW(judge({{"keep-every", "10"}}));
  CHECK_NOTHROW(judge({{"head-lr-scale", "2"}, {"tied", "false"}}));
  CHECK_NOTHROW(judge({}));
  CHECK_NOTHROW(judge({{"total-batch-tokens", "524288"}, {"dp", "4"}, {"dim", "768"}, {"heads", "12"}, {"kv-heads", "4"}}));
}

// An option without effect is a mistake where it is stated beside or after what takes its effect away, and forgotten where it was stated before.
TEST_CASE("an option that no longer acts is dropped, one that never acted is refused") {
  struct Pair {
    std::string name, value, on, against;  // `name` does not act beside `against`, the value of `on`
  };
  const std::vector<Pair> pairs = {{"muon-lr", "0.1", "optimizer", "adamw"},        {"muon-momentum", "0.5", "optimizer", "adamw"},
                                   {"decay-fraction", "0.5", "schedule", "cosine"}, {"final-lr-fraction", "0", "schedule", "constant"},
                                   {"rope-theta", "500000", "position", "learned"}, {"sample-prompt", "x", "sample-every", "0"},
                                   {"sample-tokens", "9", "sample-every", "0"},     {"head-lr-scale", "2", "tied", "true"},
                                   {"keep-every", "10", "save-every", "0"},         {"zero-init-out", "true", "init-from", "other"}};
  const std::vector<Source> sources = {Source::saved, Source::file, Source::environment, Source::flag};
  for (const Pair& p : pairs) {
    for (const Source before : sources) {
      for (const Source after : sources) {
        INFO(p.name << " " << static_cast<int>(before) << " beside " << p.on << " " << static_cast<int>(after));
        RunConfig c;
        c.set(p.name, p.value, before, "one place");
        c.set(p.on, p.against, after, "another");
        if (before != Source::saved && before >= after) {
          expect_error([&] { validate(c); }, ExitCode::usage, {"--" + p.name});
          continue;
        }
        CHECK_NOTHROW(validate(c));
        CHECK(!c.is_set(p.name));
        CHECK(RunConfig::option(p.name).toml_text(c) == RunConfig::option(p.name).toml_text(RunConfig{}));
      }
    }
  }
}

// Counts end up in ints and products, reals in floats: a value is judged as what computes with it.
TEST_CASE("every number has limits, and holds them in the type that computes with it") {
  for (const auto& o : RunConfig::options()) {
    INFO(o.name);
    RunConfig c;
    if (o.as<int64_t RunConfig::*>() && o.name != "seed") {
      CHECK(o.max <= 1.2e18);  // 2^60
      expect_error([&] { c.set(o.name, "9223372036854775807", Source::flag, "--x"); }, ExitCode::usage, {"out of range"});
    }
    if (!o.as<double RunConfig::*>()) continue;
    CHECK(o.max < 1e13);
    CHECK(o.min > -1e13);
    if (!o.single) continue;
    expect_error([&] { c.set(o.name, "1e-50", Source::flag, "--x"); }, ExitCode::usage, {"--x", "single precision"});
  }
  RunConfig c;
  for (const char* name : {"beta1", "beta2", "muon-momentum"}) {
    for (const char* value : {"1", "0.99999999", "0.9999999999999999"}) {
      expect_error([&] { c.set(name, value, Source::flag, "--x"); }, ExitCode::usage, {"out of range", "below 1"});
    }
    CHECK_NOTHROW(c.set(name, "0.9999999", Source::flag, "--x"));
  }
  expect_error([&] { c.set("keep-last", "2G", Source::flag, "--x"); }, ExitCode::usage, {"2147483647"});
  expect_error([&] { c.set("steps", "0", Source::flag, "--steps"); }, ExitCode::usage, {"--steps", "from 1"});
  for (const char* name : {"dp", "world"}) expect_error([&] { c.set(name, "0", Source::flag, "--x"); }, ExitCode::usage, {"--x", "from 1"});
  CHECK_NOTHROW(c.set("lr", "0", Source::flag, "--x"));
}

TEST_CASE("what a run cannot do without is asked for") {
  const auto refused = [](std::vector<FlagValue> flags, std::vector<std::string> parts) {
    expect_error([&] { require_runnable(from_flags(flags)); }, ExitCode::usage, std::move(parts));
  };
  refused({}, {"--model", "--depth", "--layers"});
  refused({{"depth", "4"}}, {"--out"});
  refused({{"depth", "4"}, {"out", "r"}}, {"--data"});
  refused({{"model", "gpt2"}, {"out", "r"}, {"data", "d"}}, {"--steps", "--tokens"});
  CHECK_NOTHROW(require_runnable(from_flags({{"depth", "4"}, {"out", "r"}, {"data", "d"}})));
  CHECK_NOTHROW(require_runnable(from_flags({{"model", "gpt2"}}), true));
}

TEST_CASE("a config file may be as long as the limit and no longer") {
  constexpr size_t kMost = size_t{1} << 20;
  const test::Scratch folder;
  const std::string file = folder / "long.toml";
  const auto write = [&](size_t bytes) {
    const std::string text = "steps = 7\n#";
    std::ofstream(file, std::ios::binary) << text << std::string(bytes - text.size(), 'x');
  };
  write(kMost);
  CHECK(make_run_config(file, {}, {}).steps == 7);
  write(kMost + 1);
  expect_error([&] { make_run_config(file, {}, {}); }, ExitCode::usage, {"long.toml", "at most 1048576"});
}

TEST_CASE("a hostile config file ends in an error, not in a crash") {
  const std::string base = to_toml(from_flags({{"model", "gpt2"}, {"data", "a"}, {"steps", "5"}}));
  uint64_t random = 1;
  for (int round = 0; round < 2000; ++round) {
    std::string text = base;
    for (int edits = 0; edits < 3; ++edits) {
      random = random * 6364136223846793005u + 1442695040888963407u;
      const size_t at = (random >> 33) % text.size();
      const auto byte = static_cast<char>(random >> 25);
      if (round % 3 == 0) text[at] = byte;
      if (round % 3 == 1) text.erase(at, 1 + (random >> 20) % 8);
      if (round % 3 == 2) text.insert(at, 1, byte);
    }
    RunConfig c;
    try {
      apply_toml(c, text, "f", round % 2 == 0 ? Source::file : Source::saved);
      to_toml(c);
    } catch (const Error& e) {
      CHECK(e.code() == ExitCode::usage);
    }
  }
  RunConfig c;
  const std::string deep = "data = " + std::string(5000, '[');
  expect_error([&] { apply_toml(c, deep, "f", Source::file); }, ExitCode::usage, {"f:1"});
  expect_error([&] { apply_toml(c, std::string((1 << 20) + 1, '\n'), "f", Source::file); }, ExitCode::usage, {"bytes"});
}

}  // namespace
}  // namespace heddle
