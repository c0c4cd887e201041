// Starting again: from every step, with every option changed, with every file of the data changed.
#include <cstring>
#include <filesystem>

#include "data/tokenizer.h"
#include "tests/train/pretrain_support.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;
using test::contains;
using test::error_of;
using test::Flags;
using test::numbers;
using test::Outcome;
using test::outcome;
using test::run;
using test::Scratch;
using test::slurp;

constexpr int kDone = 0, kRequeue = static_cast<int>(ExitCode::requeue);

RunConfig bare(const std::string& out) {
  return make_run_config("", {}, std::vector<FlagValue>{{"out", out}, {"progress", "false"}});
}

void copy(const std::string& from, const std::string& to) {
  fs::copy(from, to, fs::copy_options::recursive);
}

TEST_CASE("a run of 40 steps resumed from each of its steps ends with the same bits") {
  const Flags flags = {{"steps", "40"}, {"schedule", "cosine"}, {"val", test::data_set().val()}, {"eval-every", "7"}};
  const Scratch whole;
  Flags saving = flags;
  saving["save-every"] = "1", saving["keep-every"] = "1";
  REQUIRE(run(whole / "run", saving) == kDone);
  const Outcome want = outcome(whole / "run");
  REQUIRE(want.steps == numbers(1, 40));
  int equal = 0;
  for (int k = 1; k <= 40; ++k) {
    CAPTURE(k);
    const Scratch folder;
    const std::string out = folder / "run", checkpoint = concat("/ckpt/s", k, "-i1");
    fs::create_directories(out + "/ckpt");
    for (const char* name : {"inc", "metrics.jsonl", "tokenizer.json"}) copy(whole / (std::string("run/") + name), concat(out, "/", name));
    copy(whole / ("run" + checkpoint), out + checkpoint);
    RunConfig config = bare(out);
    config.set("save-every", "0", Source::flag, "--save-every");
    REQUIRE(run(config) == kDone);
    const Outcome got = outcome(out);
    CHECK(got == want);
    CHECK(test::metric(out, "val_loss") == test::metric(whole / "run", "val_loss"));
    equal += got == want;
  }
  std::printf("resume from each step: %d of 40 equal\n", equal);
}

// The run whose options are changed: all parts that an option can reach are in it.
Flags base_flags() {
  return {{"optimizer", "muon"}, {"schedule", "wsd"},  {"steps", "4"},    {"warmup", "1"},       {"val", test::data_set().val()},
          {"eval-every", "100"}, {"position", "rope"}, {"tied", "false"}, {"save-every", "1000"}};
}

// A value other than the base run's that is accepted beside the rest of it.
std::string changed_value(const Option<RunConfig>& o, const RunConfig& c) {
  static const Flags special = {{"kernel", "matmul=eigen"},
                                {"total-batch-tokens", "256"},
                                {"steps", "3"},
                                {"tokens", "384"},
                                {"threads", "2"},
                                {"device", "auto"},
                                {"batch", "4"},
                                {"warmup", "2"},
                                {"head-dim", "8"},
                                {"heads", "4"},
                                {"sample-prompt", "prompted"},
                                {"save-every", "3"},
                                {"keep-every", "3"},
                                {"tp", "2"},
                                {"zero", "1"},
                                {"dp", "2"},
                                {"rope-theta", "500"},
                                {"model", "gpt2-124m"}};
  if (const auto it = special.find(std::string(o.name)); it != special.end()) return it->second;
  if (o.is_switch()) return o.toml_text(c) == "true" ? "false" : "true";
  if (const auto* choice = o.as<ChoiceOf<RunConfig>>()) return std::string(choice->words[(choice->get(c) + 1) % choice->words.size()]);
  if (const auto* count = o.as<int64_t RunConfig::*>()) return std::to_string(c.**count == 2 ? 3 : 2);
  if (const auto* real = o.as<double RunConfig::*>()) return c.**real == 0.5 ? "0.25" : "0.5";
  if (o.as<DurationOf<RunConfig>>()) return "90m";
  return "another";
}

TEST_CASE("every option, changed on resume, lands in its class: refused with both values, overridden by a flag alone, or free") {
  const Scratch base;
  {
    const test::StopAfterStep stop(2);
    REQUIRE(run(base / "run", base_flags()) == kRequeue);
  }
  const std::string digest_before = digest(base / "run");
  const Scratch plain;
  copy(base / "run", plain / "run");
  REQUIRE(run(bare(plain / "run")) == kDone);
  const Outcome unchanged = outcome(plain / "run");
  RunConfig saved;
  apply_toml(saved, describe_checkpoint(base / "run").config, "saved", Source::saved);

  std::map<ResumeClass, int> landed;
  int options = 0;
  for (const auto& o : RunConfig::options()) {
    // Where the run lies and the files it reads have tests of their own.
    if (!o.in_file || o.name == "out" || o.name == "data" || o.name == "val" || o.name == "tokenizer" || o.name == "resume") continue;
    ++options;
    const std::string name(o.name), value = changed_value(o, saved);
    CAPTURE(name, value);
    const Scratch folder;
    const std::string out = folder / "run";
    copy(base / "run", out);
    RunConfig by_flag = bare(out);
    by_flag.set(name, value, Source::flag, "--" + name);
    RunConfig by_variable = bare(out);
    by_variable.set(name, value, Source::environment, environment_name(name));

    const std::string old_value = o.empty(saved) ? "not set" : o.toml_text(saved);
    const auto refused = [&](const RunConfig& config) {
      const std::string message = error_of([&] { run(config); }, ExitCode::mismatch);
      CAPTURE(message);
      CHECK(contains(message, name));
      CHECK(contains(message, old_value));
      CHECK(contains(message, o.toml_text(config)));
      CHECK(digest(out) == digest_before);  // nothing was touched
      return !message.empty();
    };
    if (o.resume == ResumeClass::must_match) {
      landed[o.resume] += refused(by_flag) && refused(by_variable);
      continue;
    }
    if (o.resume == ResumeClass::override_with_flag && !refused(by_variable)) continue;
    if (name == "tp" || name == "sp" || name == "dp") {
      // Parts of this launch: judged by what was started, not by what was saved.
      const std::string message = error_of([&] { run(by_flag); }, ExitCode::usage);
      CHECK(contains(message, "--" + name));
      landed[o.resume] += !message.empty();
      continue;
    }
    Flags companion;
    if (name == "sample-prompt" || name == "sample-tokens") companion = {{"sample-every", "3"}};
    for (const auto& [with, text] : companion) by_flag.set(with, text, Source::flag, "--" + with);
    REQUIRE(run(by_flag) == kDone);
    ++landed[o.resume];
    const RunConfig after = [&] {
      RunConfig c;
      apply_toml(c, slurp(out + "/config.toml"), "config.toml", Source::saved);
      return c;
    }();
    if (!o.launch) CHECK(o.toml_text(after) == o.toml_text(by_flag));  // written down for the next start
    // What is free has no part in the numbers; --batch and --kernel choose the order of sums, and the log says so.
    const bool same = outcome(out) == unchanged;
    if (o.resume == ResumeClass::free && name != "batch" && name != "kernel") CHECK(same);
  }
  std::printf("options changed on resume: %d must match, %d overridden by flag, %d free; %d of %d in their class\n", landed[ResumeClass::must_match],
              landed[ResumeClass::override_with_flag], landed[ResumeClass::free],
              landed[ResumeClass::must_match] + landed[ResumeClass::override_with_flag] + landed[ResumeClass::free], options);
  CHECK(landed[ResumeClass::must_match] + landed[ResumeClass::override_with_flag] + landed[ResumeClass::free] == options);
}

// Three training shards with their dataset.json, and a run over them that stopped after two steps.
class ShardedRun {
 public:
  ShardedRun() {
    fs::copy(test::data_set().folder / "words.txt", folder / "words.txt");
    PrepareOptions options;
    options.inputs = {folder / "words.txt"};
    options.tokenizer = "bytes";
    options.out = folder / "shards";
    options.separator = DocumentSeparator::blank_line;
    options.shard_tokens = static_cast<int64_t>(fs::file_size(folder / "words.txt")) / 3 + 100;
    options.threads = 1;
    prepare(options);
    names = expand_glob(glob());
    REQUIRE(names.size() == 3);
    const test::StopAfterStep stop(2);
    REQUIRE(run(folder / "run", {{"data", glob()}}) == kRequeue);
  }
  std::string glob() const { return folder / "shards/*_train_*.bin"; }
  RunConfig again() const { return bare(folder / "run"); }

  Scratch folder;
  std::vector<std::string> names;
};

void rewrite(const std::string& path, const std::string& content) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << content;
}

TEST_CASE("every shard renamed, cut, extended, edited or removed is refused before a step is made, by name") {
  const bool recorded = GENERATE(true, false);  // with dataset.json beside the shards, and without
  CAPTURE(recorded);
  const ShardedRun base;
  const std::string record = slurp(base.folder / "shards/dataset.json"), digest_before = digest(base.folder / "run");
  if (!recorded) fs::remove(base.folder / "shards/dataset.json");
  int refused = 0;
  for (const std::string& path : base.names) {
    const std::string content = slurp(path), name = fs::path(path).filename().string();
    const auto attempt = [&](const char* what, ExitCode code, const std::vector<std::string>& parts) {
      CAPTURE(name, what);
      const std::string message = error_of([&] { run(base.again()); }, code);
      CAPTURE(message);
      CHECK(contains(message, name));
      for (const std::string& part : parts) CHECK(contains(message, part));
      CHECK(digest(base.folder / "run") == digest_before);
      refused += !message.empty();
    };
    fs::rename(path, path + ".hidden");
    attempt("removed", ExitCode::mismatch, {"is missing", "--data"});
    const std::string other = fs::path(path).parent_path() / "other_train_000000.bin";
    fs::rename(path + ".hidden", other);
    attempt("renamed", ExitCode::mismatch, {"is now called other_train_000000.bin"});
    fs::rename(other, path);

    rewrite(path, content.substr(0, content.size() - 20));
    attempt("cut short", ExitCode::bad_data, {"cut short"});
    rewrite(path, content + "xx");
    attempt("extended", ExitCode::bad_data, {"bytes follow"});
    std::string edited = content;
    edited[1024 + 2 * 50] = static_cast<char>(edited[1024 + 2 * 50] ^ 1);  // another letter
    rewrite(path, edited);
    if (recorded) {
      attempt("edited", ExitCode::bad_data, {"SHA-256", "dataset.json"});
    } else {
      attempt("edited", ExitCode::mismatch, {concat("was ", content.size(), " bytes"), concat("now ", content.size(), " bytes"), "SHA-256"});
    }
    // Ten tokens fewer and a header that agrees.
    std::string shorter = content.substr(0, content.size() - 20);
    int32_t tokens = 0;
    std::memcpy(&tokens, shorter.data() + 8, 4);
    tokens -= 10;
    std::memcpy(shorter.data() + 8, &tokens, 4);
    rewrite(path, shorter);
    if (recorded) {
      attempt("resized", ExitCode::bad_data, {"dataset.json records"});
    } else {
      attempt("resized", ExitCode::mismatch, {concat("was ", content.size(), " bytes"), concat("now ", shorter.size(), " bytes")});
    }
    rewrite(path, content);
  }
  CHECK(refused == 18);
  // A shard more is another data set too.
  const std::string extra = base.folder / "shards/zz_train_000009.bin";
  fs::copy(base.names[0], extra);
  CHECK(contains(error_of([&] { run(base.again()); }, ExitCode::mismatch), "zz_train_000009.bin"));
  fs::remove(extra);
  // All is as it was, with or without the record: the run goes on.
  CHECK(run(base.again()) == kDone);
}

TEST_CASE("another tokenizer under a run is refused, also one with as many tokens") {
  const ShardedRun base;
  const std::string record = slurp(base.folder / "shards/dataset.json");
  TokenizerSpec spec = Tokenizer::bytes().spec();
  std::swap(spec.tokens['a'], spec.tokens['b']);
  const Tokenizer swapped(spec);
  swapped.save(base.folder / "swapped.json");
  RunConfig config = base.again();
  config.set("tokenizer", base.folder / "swapped.json", Source::flag, "--tokenizer");
  const std::string message = error_of([&] { run(config); }, ExitCode::mismatch);
  CHECK(contains(message, "swapped.json"));
  CHECK(contains(message, "run/tokenizer.json"));
  CHECK(contains(message, swapped.fingerprint().substr(0, 12)));
  CHECK(contains(message, Tokenizer::bytes().fingerprint().substr(0, 12)));
  // So is a new run over these shards, and the run's own copy when somebody replaced it.
  CHECK(contains(error_of(
                     [&] {
                       run(base.folder / "new", {{"data", base.glob()}, {"tokenizer", base.folder / "swapped.json"}});
                     },
                     ExitCode::mismatch),
                 "swapped.json"));
  swapped.save(base.folder / "run/tokenizer.json");
  CHECK(contains(error_of([&] { run(base.again()); }, ExitCode::mismatch), "run/tokenizer.json"));
}

}  // namespace
}  // namespace heddle
