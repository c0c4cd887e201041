// What a run that goes on, and a new run from its config.toml, take from what was written down.
#include "tests/support/catch.h"
#include "tests/train/config_support.h"
#include "tests/train/expect_error.h"
#include "train/config/run_config.h"

namespace heddle {
namespace {

using Strings = std::vector<std::string>;
using test::from_flags;
using test::other_value;

// Every field, changed on resume, lands in its class: must-match refuses, override needs a flag, free passes.
TEST_CASE("each option's class decides what a resumed run may change") {
  RunConfig saved_config = from_flags({{"model", "gpt2"}, {"steps", "100"}, {"tokenizer", "t.json"}});
  const std::string saved = to_toml(saved_config);
  int of_launch = 0;
  for (const auto& o : RunConfig::options()) {
    if (!o.in_file) continue;
    INFO(o.name);
    const std::string value = other_value(o, saved_config);
    const RunConfig by_flag = from_flags({{std::string(o.name), value}});
    const auto differences = compare_for_resume(saved, by_flag);
    if (o.launch) {  // taken, and no change of the run: there is nothing to tell
      CHECK(differences.empty());
      const ResumedConfig resumed = resume_config(saved, by_flag);
      CHECK(resumed.overridden.empty());
      CHECK(o.toml_text(resumed.config) == o.toml_text(by_flag));
      // An earlier version wrote what a launch was told among the run's own words.
      const std::string told = concat(o.name, " = ", o.toml_text(by_flag), "\n", saved);
      CHECK(resume_config(told, from_flags({})).overridden.empty());
      CHECK(resume_config(told, from_flags({{std::string(o.name), o.is_switch()                 ? "true"
                                                                  : o.as<ChoiceOf<RunConfig>>() ? "auto"
                                                                  : o.max < 7                   ? "1"
                                                                                                : "7"}}))
                .overridden.empty());
      ++of_launch;
      continue;
    }
    REQUIRE(differences.size() == 1);
    CHECK(differences[0].field == o.name);
    CHECK(differences[0].resume == o.resume);
    RunConfig by_file;
    by_file.set(o.name, value, Source::file, "run.toml:1");

    if (o.resume == ResumeClass::must_match) {
      expect_error([&] { resume_config(saved, by_flag); }, ExitCode::mismatch,
                   {std::string(o.name), differences[0].saved, differences[0].given, "--out"});
      expect_error([&] { resume_config(saved, by_file); }, ExitCode::mismatch, {std::string(o.name)});
      continue;
    }
    const ResumedConfig resumed = resume_config(saved, by_flag);
    CHECK(o.toml_text(resumed.config) == o.toml_text(by_flag));
    CHECK(resumed.overridden.size() == 1);
    if (o.resume == ResumeClass::override_with_flag) {
      expect_error([&] { resume_config(saved, by_file); }, ExitCode::mismatch, {std::string(o.name), "run.toml:1", "pass --" + std::string(o.name)});
    } else {
      CHECK(o.toml_text(resume_config(saved, by_file).config) == o.toml_text(by_file));
    }
  }
  CHECK(of_launch == 8);  // --resume, --time-limit, --hang-timeout, --threads, --memory-check, --dp, --zero, --gemm
}

TEST_CASE("a resumed run takes over what it is not told") {
  RunConfig before = from_flags(
      {{"out", "r"}, {"model", "gpt2"}, {"lr", "1e-3"}, {"tokens", "1M"}, {"dp", "4"}, {"data", "a"}, {"data", "b"}, {"time-limit", "1h"}});
  before.dim = 768;
  before.mark_derived("dim", "model gpt2");
  before.steps = 64;
  before.mark_derived("steps", "tokens");
  before.tp = 2;
  const std::string saved = to_toml(before);

  const ResumedConfig bare = resume_config(saved, from_flags({{"out", "r"}}));
  CHECK(bare.overridden.empty());
  CHECK(bare.config.lr == 1e-3);
  CHECK(bare.config.dim == 768);
  CHECK(bare.config.data == Strings{"a", "b"});
  CHECK(bare.config.tokens == 1 << 20);
  CHECK(bare.config.steps == 64);
  CHECK(bare.config.source("steps") == Source::kept);  // and so is derived again: the tokens say it
  CHECK(bare.config.source("dim") == Source::kept);
  CHECK(bare.config.source("beta1") == Source::kept);  // a default of the version that began the run
  CHECK(bare.config.dp == 0);                          // a matter of the launch: any world size resumes
  CHECK(bare.config.time_limit == 0);
  CHECK(bare.config.source("lr") == Source::saved);
  RunConfig judged = bare.config;
  CHECK_NOTHROW(validate(judged));

  const ResumedConfig horizon = resume_config(saved, from_flags({{"steps", "128"}, {"dp", "2"}}));
  CHECK(horizon.config.steps == 128);
  CHECK(horizon.config.tokens == 0);
  CHECK(horizon.config.dp == 2);
  judged = horizon.config;
  CHECK_NOTHROW(validate(judged));
  expect_error(
      [&] {
        resume_config(saved, from_flags({{"seed", "1"}, {"seq", "8"}, {"lr", "2"}}));
      },
      ExitCode::mismatch, {"seed", "seq", "42", "1024"});
  // Nobody gave --dp: the number is this launch's and must not bind the next.
  RunConfig found;
  found.dp = 8;
  found.mark_derived("dp", "world");
  RunConfig read;
  apply_toml(read, to_toml(found), "f", Source::saved);
  CHECK(read.dp == 0);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

TEST_CASE("a config.toml that is not what its run's checkpoint holds is told by its fields") {
  const RunConfig before = from_flags({{"model", "gpt2"}, {"steps", "100"}, {"out", "r"}});
  const std::string saved = to_toml(before);
  const RunConfig goes_on = resume_config(saved, from_flags({})).config;
  CHECK(edited_fields(saved, saved, goes_on) == "");
  for (const auto& o : RunConfig::options()) {
    if (!o.in_file) continue;
    INFO(o.name);
    const std::string name(o.name), value = other_value(o, before);
    RunConfig edited = before;
    edited.set(name, value, Source::flag, "--" + name);
    CHECK(edited_fields(to_toml(edited, true), saved, goes_on) == name);
    CHECK(edited_fields(saved, to_toml(edited, true), edited) == "");  // the run was changed since, by a start that said so
    RunConfig told = goes_on;
    told.set(name, value, Source::flag, "--" + name);
    CHECK(edited_fields(to_toml(edited, true), saved, told) == "");
  }
  CHECK(edited_fields(replaced(saved, "beta1 = 0.9 ", "beta1 = 0.5 "), saved, goes_on) == "beta1");  // under [derived]
  CHECK(edited_fields(replaced(replaced(saved, "beta1 = 0.9 ", "beta1 = 0.5 "), "steps = 100", "steps = 200"), saved, goes_on) == "steps, beta1");
}

TEST_CASE("what a config file holds under [derived] is no statement, and is told where it comes out different") {
  const std::string saved = to_toml(from_flags({{"model", "gpt2"}, {"steps", "100"}}));
  const auto text = [](const std::string& file, const std::vector<FlagValue>& flags = {}) {
    RunConfig c;
    apply_toml(c, file, "f", Source::file);
    for (const FlagValue& f : flags) c.set(f.name, f.text, Source::flag, "--" + f.name);
    return recomputed_text(c);
  };
  CHECK(text(saved) == "");
  const std::string edited = replaced(replaced(saved, "beta1 = 0.9 ", "beta1 = 0.5 "), "norm = \"layer\"", "norm = \"rms\"");
  CHECK(text(edited).find("different here: norm, beta1;") != std::string::npos);
  CHECK(text(edited, {{"norm", "layer"}}).find("different here: beta1;") != std::string::npos);
  CHECK(text(saved + "of-another-version = 3\n") == "");
  RunConfig again;
  apply_toml(again, edited, "f", Source::file);
  CHECK(again.beta1 == 0.9);
  CHECK(recomputed_text(resume_config(saved, again).config).find("beta1") != std::string::npos);
}

TEST_CASE("a configuration of a version without [derived] states nothing: its values are the run's") {
  const ResumedConfig resumed =
      resume_config("steps = 50\ntokens = 6400\ndepth = 1\noptimizer = \"muon\"\nlr = 0.003\n", from_flags({{"depth", "1"}}));
  CHECK(resumed.overridden.empty());
  CHECK(!resumed.config.is_set("steps"));
  CHECK(!resumed.config.is_set("tokens"));
  CHECK(resumed.config.is_fixed("tokens"));
  RunConfig judged = resumed.config;
  CHECK_NOTHROW(validate(judged));
}

}  // namespace
}  // namespace heddle
