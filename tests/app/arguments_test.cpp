#include "app/arguments.h"

#include <map>
#include <sstream>

#include "app/command.h"
#include "app/model_commands.h"
#include "app/pretrain.h"
#include "tests/support/catch.h"
#include "tests/train/expect_error.h"

namespace heddle::app {
namespace {

using Strings = std::vector<std::string>;

RunConfig parse(const Strings& args, const Strings& environment = {}) {
  return parse_pretrain(args, environment).config;
}

TEST_CASE("switches take every spelling, and the last of several stands") {
  CHECK(parse({}).bias);
  CHECK(!parse({"--no-bias"}).bias);
  CHECK(!parse({"--bias=false"}).bias);
  CHECK(parse({"--bias=true"}).bias);
  CHECK(!parse({"--no-bias=true"}).bias);
  CHECK(parse({"--no-bias", "--bias"}).bias);
  CHECK(!parse({"--bias", "--bias=false"}).bias);
  CHECK(parse({"--deterministic"}).deterministic);
  CHECK(parse({"--deterministic=1"}).deterministic);
  expect_error([] { parse({"--bias=maybe"}); }, ExitCode::usage, {"--bias", "maybe"});
}

TEST_CASE("values: the last stands, lists append, both spellings of assignment") {
  CHECK(parse({"--steps", "5", "--steps=2k"}).steps == 2048);
  CHECK(parse({"--data", "a", "b", "--seed", "1", "--data=c"}).data == Strings{"a", "b", "c"});
  CHECK(parse({"--lr", "3e-4"}).lr == 3e-4);
  CHECK(parse({"--sample-every", "1", "--sample-prompt", "-x"}).sample_prompt == "-x");
  CHECK(parse({"--out", "with space"}).out == "with space");
  CHECK(parse({"--steps", "5", "--"}).steps == 5);
}

TEST_CASE("what is no flag, or has no value, is refused with help") {
  const auto refused = [](const Strings& args, Strings parts) {
    INFO(args.front());
    expect_error([&] { parse(args); }, ExitCode::usage, parts);
  };
  refused({"--lrr", "1"}, {"unknown flag --lrr", "did you mean --lr?", "heddle pretrain --help"});
  refused({"-lr", "1"}, {"unknown flag -lr", "--lr?"});
  refused({"--total_batch_tokens=5"}, {"--total-batch-tokens?"});
  refused({"--no-biass"}, {"--no-bias?"});
  refused({"--se", "5"}, {"unknown flag --se"});  // no abbreviations: a new flag must not change what a script means
  refused({"run"}, {"unexpected argument \"run\""});
  refused({"--steps", "5", "6"}, {"unexpected argument \"6\""});
  refused({"--lr"}, {"--lr needs a value"});
  refused({"--out="}, {"--out needs a value"});
  refused({"--seed", "--steps", "5"}, {"--seed needs a value", "--steps"});
  refused({"--data", "--val", "x"}, {"--data needs a value"});
  refused({"--seed", "-1"}, {"--seed", "-1"});
  refused({"--steps", "99999999999999999999"}, {"--steps", "9223372036854775807"});
  refused({"--lr", "nan"}, {"--lr", "finite"});
  refused({"--zero", "4"}, {"--zero", "from 0 to 1"});
  refused({"--seq", "16777217"}, {"--seq", "from 1 to 16777216"});
  refused({"--log-every", "0"}, {"--log-every", "from 1"});
  refused({"--total-batch-tokens", "9223372036854775807"}, {"--total-batch-tokens", "from 1 to 1099511627776"});
  refused({"--config", "/nonexistent.toml"}, {"/nonexistent.toml"});
}

TEST_CASE("environment stands between file and flags on the command line too") {
  const RunConfig c = parse({"--seed", "3"}, {"HEDDLE_SEED=2", "HEDDLE_LR=1e-2"});
  CHECK(c.seed == 3);
  CHECK(c.lr == 1e-2);
  expect_error([] { parse({}, {"HEDDLE_SEEED=2"}); }, ExitCode::usage, {"HEDDLE_SEEED", "HEDDLE_SEED?"});
}

TEST_CASE("generate") {
  const auto parse_it = [](const Strings& args) {
    GenerateOptions options;
    const bool run = parse_generate(args, options);  // outside CHECK, which would swallow the errors looked for below
    CHECK(run);
    return options;
  };
  const GenerateOptions o =
      parse_it({"run", "--prompt-ids", "1,2", "--prompt-ids=3", "--max-new-tokens", "8", "--greedy", "--print-ids", "--logprobs"});
  CHECK(o.path == "run");
  CHECK(o.prompt_tokens() == std::vector<int32_t>{1, 2, 3});
  CHECK(o.max_new_tokens == 8);
  CHECK((o.greedy && o.print_ids && o.logprobs));
  CHECK(parse_it({"--prompt", "hello there", "run", "--temperature", "0.8", "--top-k=50", "--top-p", "0.9"}).prompt == "hello there");
  const auto refused = [&](const Strings& args, Strings parts) { expect_error([&] { parse_it(args); }, ExitCode::usage, parts); };
  refused({"--prompt", "x"}, {"no model"});
  CHECK(parse_it({"run"}).prompt_tokens().empty());  // begins a document
  refused({"run", "--prompt", "x", "--prompt-ids", "1"}, {"either"});
  refused({"run", "--prompt", "x", "--greedy", "--top-k", "5"}, {"--greedy", "--top-k"});
  refused({"run", "--prompt", "x", "--temperature", "0"}, {"--greedy"});
  refused({"run", "--prompt", "x", "--top-p", "1.5"}, {"--top-p", "1.5"});
  refused({"run", "--prompt-ids", "1,,2"}, {"--prompt-ids"});
  refused({"run", "--prompt-ids", "1,-2"}, {"--prompt-ids", "-2"});
  refused({"run", "--prompt-ids", "3000000000"}, {"3000000000"});
  refused({"run", "more", "--prompt", "x"}, {"unexpected argument \"more\""});
}

TEST_CASE("eval and inspect") {
  EvalOptions eval;
  CHECK(parse_eval(Strings{"run", "--data", "a", "b", "--tokens", "1M", "--json"}, eval));
  CHECK(eval.path == "run");
  CHECK(eval.data == Strings{"a", "b"});
  CHECK(eval.tokens == 1 << 20);
  CHECK(eval.json);
  EvalOptions none;
  expect_error([&] { parse_eval(Strings{"run"}, none); }, ExitCode::usage, {"--data"});
  expect_error([&] { parse_eval(Strings{"--data", "x"}, none = {}); }, ExitCode::usage, {"no model"});
  InspectArguments inspect;
  CHECK(parse_inspect(Strings{"run", "--digest"}, inspect));
  CHECK((inspect.digest && !inspect.verify));
  InspectArguments both;
  expect_error([&] { parse_inspect(Strings{"run", "--digest", "--verify"}, both); }, ExitCode::usage, {"--verify", "--digest", "give one"});
  InspectArguments nothing;
  expect_error([&] { parse_inspect(Strings{"--verify"}, nothing); }, ExitCode::usage, {"nothing to look at"});
}

TEST_CASE("help names every flag, its default and its other spelling") {
  std::vector<BoundOption> options;
  for (const auto& o : RunConfig::options()) options.push_back({o.info(), {}});
  std::ostringstream out;
  print_help(out, {"pretrain", "[flags]", "Trains.", "  heddle pretrain"}, options);
  const std::string help = out.str();
  for (const auto& o : RunConfig::options()) {
    INFO(o.name);
    CHECK(o.help.size() <= 100);
    CHECK(help.find("--" + std::string(o.name)) != std::string::npos);
    if (o.is_switch()) CHECK(help.find("--no-" + std::string(o.name)) != std::string::npos);
  }
  std::istringstream lines(help);
  for (std::string line; std::getline(lines, line);) {
    INFO(line);
    CHECK(line.size() <= 110);
    CHECK((line.empty() || line.back() != ' '));
  }
}

}  // namespace
}  // namespace heddle::app
