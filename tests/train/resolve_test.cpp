// From what is stated to what is done, and back through what a run writes down.
#include "train/config/resolve.h"

#include <random>

#include "kernels/api/check.h"
#include "tests/support/catch.h"
#include "tests/train/expect_error.h"
#include "train/config/run_config.h"

namespace heddle {
namespace {

using FlagSet = std::vector<FlagValue>;

struct Resolved {
  RunConfig config;
  TransformerConfig shape;
};
Resolved completed(RunConfig config, RunFacts facts = {.ranks = 1, .vocab = 300}) {
  Resolved out{std::move(config), {}};
  out.shape = resolve(out.config, facts);
  return out;
}
Resolved resolved(const FlagSet& flags, RunFacts facts = {.ranks = 1, .vocab = 300}) {
  return completed(make_run_config("", {}, flags), facts);
}

std::string differences(const RunConfig& a, const RunConfig& b, bool launch_too) {
  std::string out;
  for (const auto& o : RunConfig::options()) {
    if (!o.in_file || (o.launch && !launch_too) || o.toml_text(a) == o.toml_text(b)) continue;
    out += concat(o.name, ": ", o.toml_text(a), " / ", o.toml_text(b), "\n");
  }
  return out;
}

// A flag set that a user could type: a model by each of its ways, a horizon by each of its ways, and a handful of whatever else acts.
FlagSet random_flags(std::mt19937& engine) {
  const auto pick = [&](const std::vector<std::string>& from) { return from[engine() % from.size()]; };
  FlagSet flags;
  const auto add = [&](const std::string& name, const std::string& text) { flags.push_back({name, text}); };
  const auto maybe = [&](const std::string& name, const std::vector<std::string>& from) {
    if (engine() % 3 == 0) add(name, pick(from));
  };
  const auto way = engine() % 3;
  if (way == 0) {
    add("depth", pick({"1", "2", "3"}));
    maybe("muon-lr", {"0.01", "0.03"});
  } else if (way == 1) {
    add("model", pick({"tiny-gpt", "tiny-llama", "qwen3-0.6b", "llama-1b"}));
    maybe("kv-heads", {"1", "2"});
  } else {
    add("layers", pick({"1", "3"}));
    add("heads", pick({"2", "4"}));
    add("dim", pick({"16", "40"}));
    maybe("head-dim", {"12", "8"});
    maybe("mlp", {"gelu", "relu2", "swiglu"});
  }
  const auto horizon = engine() % 3;
  if (horizon == 0 || (horizon == 2 && way != 0)) add("steps", pick({"10", "64"}));
  if (horizon == 1) add("tokens", pick({"1M", "300k"}));
  maybe("schedule", {"constant", "linear"});
  maybe("mlp-dim", {"24", "96"});
  maybe("norm", {"rms", "layer"});
  maybe("tied", {"true", "false"});
  maybe("lr", {"1e-3", "0.01"});
  maybe("batch", {"2", "4"});
  maybe("warmup", {"3"});
  maybe("sample-every", {"0", "5"});
  maybe("vocab", {"300", "512"});
  maybe("weight-decay", {"0", "0.2"});
  maybe("optimizer", {"adamw", "muon"});
  for (const FlagValue& f : flags) {
    if (f.name == "optimizer" && f.text == "adamw") {
      flags.erase(std::remove_if(flags.begin(), flags.end(), [](const FlagValue& x) { return x.name == "muon-lr"; }), flags.end());
      break;
    }
  }
  return flags;
}

TEST_CASE("a run that goes on, with the same words or with none, does what it did; so does a new run from its config.toml") {
  std::mt19937 engine(5);
  for (int round = 0; round < 400; ++round) {
    const FlagSet flags = random_flags(engine);
    std::string line;
    for (const FlagValue& f : flags) line += concat(" --", f.name, " ", f.text);
    INFO(line);
    const Resolved first = resolved(flags);
    const std::string written = to_toml(first.config);
    const auto trained = static_cast<uint64_t>(first.config.total_batch_tokens);
    const RunFacts later{.ranks = 1, .vocab = 300, .goes_on = true, .step = 1, .tokens = trained};

    for (const FlagSet& now : {flags, FlagSet{}}) {
      const ResumedConfig resumed = resume_config(written, make_run_config("", {}, now));
      CHECK(resumed.overridden.empty());
      const Resolved again = completed(resumed.config, later);
      CHECK(differences(first.config, again.config, true) == "");
      CHECK(to_toml(again.config).size() > 500);
      // And once more, from what that start wrote down.
      CHECK(differences(first.config, completed(resume_config(to_toml(again.config), make_run_config("", {}, now)).config, later).config, true) ==
            "");
    }
    RunConfig from_file;
    apply_toml(from_file, written, "config.toml", Source::file);
    CHECK(differences(first.config, completed(from_file).config, true) == "");
    // Told twice or told more: the same.
    RunConfig twice = make_run_config("", {}, flags);
    resolve(twice, {.ranks = 1});
    resolve(twice, {.ranks = 1, .vocab = 300});
    CHECK(differences(first.config, twice, true) == "");
  }
}

TEST_CASE("the model's shape has one judge") {
  const auto refused = [](const FlagSet& flags, std::vector<std::string> parts) {
    INFO(parts.front());
    expect_error([&] { resolved(flags); }, ExitCode::usage, std::move(parts));
  };
  const auto with = [](FlagSet more) {
    more.push_back({"layers", "1"});
    return more;
  };
  refused(with({{"dim", "100"}, {"heads", "3"}}), {"--dim 100", "--heads 3", "--dim 102", "--head-dim"});
  refused(with({{"dim", "48"}, {"heads", "6"}, {"kv-heads", "4"}}), {"--heads 6", "--kv-heads 4"});
  refused(with({{"dim", "9"}, {"heads", "3"}, {"position", "rope"}}), {"even", "3", "--dim 9"});
  refused(with({{"dim", "9"}, {"heads", "3"}, {"head-dim", "5"}, {"position", "rope"}}), {"even", "5 (--head-dim)"});
  refused(with({{"dim", "600"}, {"heads", "2"}}), {"300", "256"});
  refused({{"model", "gpt2"}}, {"no preset", "gpt2"});
  refused({{"model", "tiny-gpt"}, {"depth", "4"}}, {"--model tiny-gpt", "--depth 4"});
  refused({{"vocab", "200"}, {"model", "tiny-gpt"}}, {"--vocab 200", "300"});
  refused({{"dp", "2"}, {"model", "tiny-gpt"}}, {"--dp 2", "1 rank was started", "mpirun -np 2"});
  refused({{"muon-lr", "0.1"}, {"depth", "1"}, {"optimizer", "adamw"}}, {"--muon-lr", "--optimizer muon"});
  refused({{"rope-theta", "5"}, {"model", "tiny-gpt"}}, {"--rope-theta", "--position rope"});
  refused({{"tokens", "100"}, {"model", "tiny-gpt"}}, {"--tokens 100", "8192"});
  // The width of a head is its own: gpt-oss has 64 heads of 64 on a stream of 2880.
  const Resolved wide = resolved({{"layers", "1"}, {"dim", "2880"}, {"heads", "64"}, {"head-dim", "64"}});
  CHECK(wide.shape.head_dim == 64);
  CHECK(wide.shape.dim == 2880);
  CHECK(resolved({{"layers", "1"}, {"dim", "11"}, {"heads", "3"}, {"head-dim", "12"}, {"position", "rope"}}).shape.head_dim == 12);
}

TEST_CASE("what follows from one word is what that word says, and no more") {
  const Resolved depth = resolved({{"depth", "2"}, {"muon-lr", "0.03"}, {"rope-theta", "500"}});
  CHECK(depth.config.optimizer == OptimizerChoice::muon);
  CHECK(depth.config.muon_lr == 0.03);
  CHECK(depth.shape.rope_theta == 500);
  CHECK(depth.config.steps == depth.config.tokens / depth.config.total_batch_tokens);
  CHECK(!depth.config.is_set("tokens"));
  CHECK(depth.config.origin_text("optimizer") == "from depth 2");
  CHECK(depth.config.origin_text("vocab") == "from the data");
  const Resolved swiglu = resolved({{"layers", "1"}, {"dim", "16"}, {"heads", "2"}, {"mlp", "swiglu"}});
  CHECK(!swiglu.shape.bias);
  expect_error([] { resolved({{"layers", "1"}, {"dim", "16"}, {"heads", "2"}, {"mlp", "swiglu"}, {"bias", "true"}}); }, ExitCode::usage, {"--bias"});
  // A preset's key/value heads belong to its heads, its widths to its width.
  CHECK(resolved({{"model", "tiny-llama"}, {"heads", "8"}}).shape.kv_heads == 8);
  CHECK(resolved({{"model", "tiny-llama"}}).shape.kv_heads == 2);
  CHECK(resolved({{"model", "qwen3-0.6b"}}).shape.head_dim == 128);
  CHECK(resolved({{"model", "qwen3-0.6b"}, {"dim", "512"}}).shape.head_dim == 32);
  CHECK(resolved({{"model", "tiny-llama"}, {"mlp", "swiglu"}}).shape.mlp_dim == 192);
}

TEST_CASE("nothing is judged by the horizon of a vocabulary that nobody has looked at") {
  const FlagSet flags = {{"depth", "1"},  {"dim", "16"}, {"heads", "1"}, {"batch", "8"}, {"seq", "16"}, {"total-batch-tokens", "8192"},
                         {"warmup", "10"}};
  RunConfig config = resolved(flags, {.ranks = 1}).config;
  CHECK(config.steps == 0);
  resolve(config, {.ranks = 1, .vocab = 300});
  CHECK(config.steps == 19);  // 20 x (4 x 16 x 16 + 2 x 16 x 64 + 300 x 16) tokens
  CHECK(config.steps == resolved(flags).config.steps);
}

TEST_CASE("a horizon asked for now that lies in the past is refused, one that was saved and is reached is not") {
  const FlagSet flags = {{"model", "tiny-gpt"}, {"seq", "32"}, {"batch", "2"}, {"out", "r"}};
  const RunFacts reached{.ranks = 1, .vocab = 300, .goes_on = true, .step = 6, .tokens = 384};
  for (const FlagValue& horizon : {FlagValue{"steps", "6"}, FlagValue{"tokens", "384"}}) {
    FlagSet first = flags;
    first.push_back(horizon);
    const std::string saved = to_toml(resolved(first).config);
    const auto again = [&](const FlagSet& now) { return completed(resume_config(saved, make_run_config("", {}, now)).config, reached).config.steps; };
    const auto beyond = [&](const FlagSet& now) {
      RunConfig config = resume_config(saved, make_run_config("", {}, now)).config;
      return completed(config, {.ranks = 1, .vocab = 300, .goes_on = true, .step = 7, .tokens = 448}).config.steps;
    };
    CHECK(again({}) == 6);
    CHECK(beyond({}) <= 7);  // an earlier start was told more, and this one is told nothing
    for (const FlagValue& same : {FlagValue{"steps", "6"}, FlagValue{"tokens", "384"}, FlagValue{"tokens", "400"}}) CHECK(again({same}) == 6);
    expect_error([&] { again({{"steps", "5"}}); }, ExitCode::usage, {"--steps 5", "step 6", "run in r", "--out"});
    expect_error([&] { again({{"tokens", "383"}}); }, ExitCode::usage, {"--tokens 383", "384 tokens", "run in r", "--out"});
    expect_error([&] { again({{"tokens", "3"}}); }, ExitCode::usage, {"--tokens 3", "384 tokens"});
    RunConfig by_variable = resume_config(saved, make_run_config("", std::vector<std::string>{}, {})).config;
    by_variable.set(horizon.name, "3", Source::environment, "HEDDLE_X");
    expect_error([&] { completed(by_variable, reached); }, ExitCode::usage, {"--" + horizon.name + " 3", "HEDDLE_X"});
  }
}

TEST_CASE("a horizon by the clock is chosen once: what it came to is kept, and --steps alone moves it") {
  for (const FlagSet& model : {FlagSet{{"model", "tiny-gpt"}}, FlagSet{{"depth", "1"}}}) {
    FlagSet flags = model;
    flags.push_back({"minutes", "5"});
    RunConfig first = resolved(flags).config;
    CHECK(first.steps == 0);  // the machine has not been asked yet
    CHECK(first.tokens == 0);
    first.steps = 700;
    first.mark_derived("steps", "minutes 5");
    const std::string saved = to_toml(first);
    const auto again = [&](const FlagSet& now) {
      return completed(resume_config(saved, make_run_config("", {}, now)).config,
                       {.ranks = 1, .vocab = 300, .goes_on = true, .step = 8, .tokens = 8 * 8192})
          .config;
    };
    for (const FlagSet& now : {flags, FlagSet{}, FlagSet{{"minutes", "5"}}}) {
      CHECK(again(now).steps == 700);
      CHECK(again(now).minutes == 5);
    }
    CHECK(again({{"steps", "900"}}).steps == 900);
    CHECK(again({{"steps", "900"}}).minutes == 0);
    expect_error([&] { again({{"minutes", "6"}}); }, ExitCode::mismatch, {"minutes: saved 5.0, given 6.0", "must stay"});
    // A new run measures for itself.
    RunConfig other;
    apply_toml(other, saved, "config.toml", Source::file);
    CHECK(completed(other).config.steps == 0);
  }
}

TEST_CASE("what does not go with the saved run's step says whose step it is, and what would") {
  const RunConfig first = resolved({{"model", "tiny-gpt"}, {"seq", "32"}, {"batch", "4"}, {"steps", "6"}}).config;  // steps of 128 tokens
  const auto again = [&](const FlagSet& now, int64_t ranks = 1) {
    completed(resume_config(to_toml(first), make_run_config("", {}, now)).config,
              {.ranks = ranks, .vocab = 300, .goes_on = true, .step = 2, .tokens = 256});
  };
  const auto refused = [&](const FlagSet& now, int64_t ranks, const std::vector<std::string>& parts) {
    expect_error([&] { again(now, ranks); }, ExitCode::usage, parts);
  };
  refused({{"batch", "3"}}, 1,
          {"a step of the saved run is 128 tokens", "--seq 32 x --batch 3 x --dp 1 = 96", "give --batch 2,", "nearest are 96 and 192"});
  refused({{"batch", "5"}}, 1, {"saved run", "give --batch 4,", "the nearest is 160"});
  refused({}, 2, {"saved run", "--batch 4 x --dp 2 = 256", "give --batch 2,", "the nearest is 256"});
  refused({}, 3, {"saved run", "--dp 3 = 384: change its steps", "the nearest is 384"});
  CHECK_NOTHROW(again({{"batch", "2"}}, 2));
  CHECK_NOTHROW(again({{"total-batch-tokens", "384"}}, 3));
  expect_error([&] { again({{"total-batch-tokens", "100"}}); }, ExitCode::usage, {"[config] --total-batch-tokens 100 is not", "the nearest is 128"});
}

TEST_CASE("a horizon in tokens is counted in tokens, whatever a step was and is") {
  const FlagSet flags = {{"model", "tiny-gpt"}, {"seq", "32"}, {"batch", "2"}, {"tokens", "64000"}};
  const Resolved first = resolved(flags);
  CHECK(first.config.total_batch_tokens == 64);
  CHECK(first.config.steps == 1000);
  FlagSet larger = flags;
  larger.push_back({"total-batch-tokens", "128"});
  const RunConfig resumed = resume_config(to_toml(first.config), make_run_config("", {}, larger)).config;
  CHECK(completed(resumed, {.ranks = 1, .vocab = 300, .goes_on = true, .step = 400, .tokens = 400 * 64}).config.steps == 700);
  // Another --batch is the same update in other parts.
  FlagSet parts = flags;
  parts.push_back({"batch", "1"});
  const Resolved split = completed(resume_config(to_toml(first.config), make_run_config("", {}, parts)).config,
                                   {.ranks = 1, .vocab = 300, .goes_on = true, .step = 400, .tokens = 400 * 64});
  CHECK(split.config.total_batch_tokens == 64);
  CHECK(micro_steps(split.config) == 2);
  CHECK(split.config.steps == 1000);
  // --steps over a saved --tokens, and back.
  const RunConfig steps = resume_config(to_toml(first.config), make_run_config("", {}, FlagSet{{"steps", "70"}})).config;
  CHECK(completed(steps).config.steps == 70);
  CHECK(completed(resume_config(to_toml(completed(steps).config), make_run_config("", {}, FlagSet{{"tokens", "6400"}})).config).config.steps == 100);
}

}  // namespace
}  // namespace heddle
