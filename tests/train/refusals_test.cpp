// What a start refuses: configurations, data, directories and weights that do not fit the run that is there.
#include <sys/wait.h>

#include <filesystem>
#include <sstream>

#include "parallel/control.h"
#include "tests/train/expect_error.h"
#include "tests/train/pretrain_support.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;
using test::Flags;
using test::run;
using test::Scratch;

constexpr int kDone = 0, kRequeue = static_cast<int>(ExitCode::requeue);

TEST_CASE("a changed configuration is refused or needs the flag; code 78 names the field") {
  const Scratch out;
  {
    const test::StopAfterStep stop(2);
    REQUIRE(run(out.path()) == kRequeue);
  }
  for (const auto& [field, value] : Flags{{"layers", "3"}, {"dim", "64"}, {"seq", "16"}, {"seed", "7"}, {"optimizer", "muon"}, {"tied", "false"}}) {
    CAPTURE(field);
    Flags flags = {{field, value}};
    if (field == "seq") flags["total-batch-tokens"] = "";  // derived anew
    const std::string error = test::error_of([&] { run(out.path(), flags); }, ExitCode::mismatch);
    CHECK(test::contains(error, field));
  }
  // From a config file or the environment a training field may not change either; a flag may change it.
  const std::vector<FlagValue> flags = {{"out", out.path()}, {"progress", "false"}};
  const std::vector<std::string> environment = {"HEDDLE_LR=0.5"};
  CHECK(test::contains(test::error_of([&] { run(make_run_config("", environment, flags)); }, ExitCode::mismatch), "lr"));
  CHECK(describe_checkpoint(out.path()).step == 2);  // refusals left the run as it was
  CHECK(run(out.path(), {{"lr", "0.5"}, {"steps", "3"}}) == kDone);
}

TEST_CASE("another data set under a run is refused with 78; the same one elsewhere is not") {
  const Scratch out, moved;
  {
    const test::StopAfterStep stop(2);
    REQUIRE(run(out.path()) == kRequeue);
  }
  const test::DataSet other(2);
  const std::string error = test::error_of([&] { run(out.path(), {{"data", other.train()}}); }, ExitCode::mismatch);
  CHECK(test::contains(error, "--data"));
  CHECK(test::contains(error, "--init-from"));
  fs::copy(test::data_set().folder / "shards", moved / "copy", fs::copy_options::recursive);
  CHECK(run(out.path(), {{"data", moved / "copy/*_train_*.bin"}}) == kDone);
}

TEST_CASE("a vocabulary smaller than the data's is an error before any training") {
  const Scratch out, bare;
  CHECK(test::contains(test::error_of([&] { run(out.path(), {{"vocab", "100"}}); }, ExitCode::usage), "--vocab 100"));
  CHECK(!fs::exists(out / "metrics.jsonl"));
  // Shards without a tokenizer or dataset.json beside them: the tokens themselves are looked at.
  std::vector<int32_t> tokens(400);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i % 120);
  bare.write("plain_000000.bin", test::shard_bytes(tokens));
  const Flags flags = {{"data", bare / "plain_*.bin"}, {"doc-mask", "false"}, {"steps", "4"}, {"warmup", "0"}};
  const Scratch plain;  // a run directory that has no tokenizer yet
  Flags small = flags, enough = flags;
  small["vocab"] = "119";
  enough["vocab"] = "120";
  CHECK(test::contains(test::error_of([&] { run(plain.path(), small); }, ExitCode::bad_data), "plain_000000.bin"));
  CHECK(run(plain.path(), enough) == kDone);
}

TEST_CASE("a run directory in use, a batch that does not divide, ranks that are not there give codes 73 and 2") {
  const Scratch out;
  {
    const auto comm = local_control();
    const Checkpoints first(out.path(), *comm);
    CHECK(test::contains(test::error_of([&] { run(out.path()); }, ExitCode::in_use), out.path()));
  }
  for (const char* tokens : {"96", "100", "32"}) {
    CAPTURE(tokens);
    const std::string error = test::error_of([&] { run(out.path(), {{"total-batch-tokens", tokens}}); }, ExitCode::usage);
    CHECK(test::contains(error, std::string("--total-batch-tokens ") + tokens));
  }
  CHECK(test::contains(test::error_of([&] { run(out.path(), {{"dp", "2"}}); }, ExitCode::usage), "--dp 2"));
  CHECK(test::contains(test::error_of([&] { run(out.path(), {{"resume", "must"}}); }, ExitCode::bad_data), out.path()));
  CHECK(run(out.path(), {{"steps", "1"}, {"warmup", "0"}}) == kDone);
  CHECK(test::contains(test::error_of([&] { run(out.path(), {{"resume", "never"}}); }, ExitCode::usage), out.path()));
}

TEST_CASE("a run of a version before 0.2 is refused with 78, whoever opens it, and left as it is") {
  const Scratch now, before, fresh;
  REQUIRE(run(now.path(), {{"steps", "1"}, {"warmup", "0"}}) == kDone);
  {
    const auto control = local_control();
    Checkpoints checkpoints(before.path(), *control);
    checkpoints.find_newest();
    float value = 1;
    StateDict state;
    state.tensors.push_back({"model.blocks.0.attn.qkv.weight", make_view(&value, {1}), {1}, {{0, 1}}});
    state.scalars = "{\"step\": 1}";
    checkpoints.save(1, state, describe_checkpoint(now.path()).config);
    checkpoints.wait();
  }
  for (const auto& [out, more] : std::vector<std::pair<std::string, Flags>>{{before.path(), {}}, {fresh.path(), {{"init-from", before.path()}}}}) {
    CAPTURE(out);
    CHECK(test::contains(test::error_of([&, out = out, more = more] { run(out, more); }, ExitCode::mismatch), "before 0.2"));
  }
  CHECK(fs::exists(before / "ckpt/s1-i1/MANIFEST"));
  CHECK((!fs::exists(before / "quarantine") || fs::is_empty(before / "quarantine")));
}

TEST_CASE("--init-from starts a new run from the weights alone") {
  const Scratch first, second, third;
  REQUIRE(run(first.path()) == kDone);
  REQUIRE(run(second.path(), {{"init-from", first.path()}, {"steps", "1"}, {"warmup", "0"}, {"lr", "0"}}) == kDone);
  REQUIRE(run(third.path(), {{"steps", "1"}, {"warmup", "0"}, {"lr", "0"}}) == kDone);
  // Step 1 of a trained model on the same samples: better than untrained.
  CHECK(std::stod(test::metric(second.path(), "loss")[0]) < std::stod(test::metric(third.path(), "loss")[0]) - 0.5);
  CHECK(describe_checkpoint(second.path()).step == 1);
}

}  // namespace
}  // namespace heddle
