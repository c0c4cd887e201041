// Whole runs: the same bits on any number of threads, after any stop, and refusals that say why.
#include <omp.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <chrono>
#include <thread>

#include <filesystem>
#include <sstream>

#include "core/device.h"
#include "infer/generate.h"
#include "infer/load.h"
#include "kernels/api/cross_entropy.h"
#include "parallel/control.h"
#include "tests/support/devices.h"
#include "tests/support/host_kernels.h"
#include "tests/train/expect_error.h"
#include "tests/train/pretrain_support.h"
#include "train/report/bad_batches.h"

namespace heddle {
namespace {

namespace fs = std::filesystem;
using test::Flags;
using test::numbers;
using test::Outcome;
using test::outcome;
using test::run;
using test::run_config;
using test::Scratch;

constexpr int kDone = 0, kRequeue = static_cast<int>(ExitCode::requeue);

TEST_CASE("a run's losses and its checkpoint do not depend on the number of threads") {
  const int before = omp_get_max_threads();
  // Large enough that the kernels do share their work.
  const Flags size = {{"dim", "128"}, {"mlp-dim", "512"}, {"seq", "64"}, {"batch", "8"}, {"total-batch-tokens", "512"}, {"steps", "3"}};
  for (const char* precision : {"fp32", "bf16"}) {
    CAPTURE(precision);
    std::vector<Outcome> outcomes;
    for (const char* threads : {"1", "2", "3"}) {
      const Scratch out;
      Flags flags = size;
      flags["threads"] = threads, flags["precision"] = precision;
      REQUIRE(run(out.path(), flags) == kDone);
      outcomes.push_back(outcome(out.path()));
    }
    CHECK(outcomes[0].losses.size() == 3);
    CHECK(outcomes[1] == outcomes[0]);
    CHECK(outcomes[2] == outcomes[0]);
  }
  omp_set_num_threads(before);
}

// From the n-th update on, one weight is no number.
struct SpoiledWeights {
  static inline int updates = 0, from = 0;
  const test::Intercept<kernels::AdamWArgs> intercept{kernels::adamw, nullptr, [](const kernels::AdamWArgs& args) {
                                                        if (++updates >= from) args.master.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
                                                      }};
  explicit SpoiledWeights(int update) { updates = 0, from = update; }
};

TEST_CASE("a run whose weights are no numbers is kept as it is, never done, and never the state to go on from") {
  const Flags flags = GENERATE(Flags{}, Flags{{"val", test::data_set().val()}}, Flags{{"optimizer", "muon"}}, Flags{{"precision", "bf16"}});
  const Scratch out;
  const auto spoil = [&](int update, Flags more = {}) {
    more.insert(flags.begin(), flags.end());
    const SpoiledWeights spoiled(update);
    return test::error_of([&] { run(out.path(), more); }, ExitCode::runtime);
  };
  REQUIRE(run(out.path(), [&] {
            Flags first = flags;
            first["steps"] = "4";
            return first;
          }()) == kDone);
  // At the horizon.
  const std::string last = spoil(1, {{"steps", "5"}});
  for (const char* part : {"step 5", "NaN or infinity", "diverged", "ckpt/s5-i"}) CHECK(test::contains(last, part));
  CHECK(describe_checkpoint(out.path()).step == 5);
  CHECK(test::metric(out.path(), "step") == numbers(1, 5));
  // Started again it is not "done" either, and trains no further.
  for (const char* steps : {"5", "9"}) {
    const std::string again = test::error_of([&] { run(out.path(), {{"steps", steps}}); }, ExitCode::runtime);
    for (const char* part : {"step 5", "NaN or infinity", "ckpt/s5-i", "delete that folder"}) CHECK(test::contains(again, part));
  }
  // As the message says: without that folder the run goes on from the one before.
  for (const auto& entry : fs::directory_iterator(out / "ckpt")) {
    if (entry.path().filename().string().starts_with("s5-")) fs::remove_all(entry.path());
  }
  // In the middle, where a save is due: it does not train on until the good checkpoint is pushed out.
  CHECK(test::contains(spoil(2, {{"steps", "30"}, {"save-every", "3"}, {"keep-last", "2"}, {"nonfinite-limit", "30"}}), "after step 6 "));
  CHECK(fs::exists(out / "ckpt/s4-i1"));
}

TEST_CASE("a run whose last validation loss is no number is saved as it is and ends with an error") {
  static bool spoil;
  spoil = false;
  const Scratch out;
  const test::Intercept<kernels::AdvanceStepArgs> last(kernels::advance_step, nullptr,
                                                       [](const kernels::AdvanceStepArgs& args) { spoil = args.step->step == 12; });
  const test::Intercept<kernels::CrossEntropyArgs> loss(kernels::cross_entropy, nullptr, [](const kernels::CrossEntropyArgs& args) {
    if (!spoil) return;
    for (const View& loss : {args.losses, args.nll}) {
      if (loss.data) loss.as<float>()[0] = std::numeric_limits<float>::quiet_NaN();
    }
  });
  expect_error([&] { run(out.path(), {{"val", test::data_set().val()}}); }, ExitCode::runtime, {"step 12", "validation loss is", "nan", "diverged"});
  CHECK(outcome(out.path()).steps == numbers(1, 12));
  CHECK(test::metric(out.path(), "val_loss").back() != "");
}

TEST_CASE("a device whose results are looked at a step late rolls back, withholds, saves and logs as one whose are not", "[device]") {
  const kernels::ForcedKernels forced(test::host_kernels());  // bits are compared
  const auto trained_on = [](Device device, const std::string& out) {
    const test::BadGradients bad({3, 9, 10});
    const std::string where = device.type == DeviceType::cpu ? "cpu" : "cuda";
    REQUIRE(run(out, {{"device", where}, {"precision", "fp32"}, {"save-every", "4"}, {"nonfinite-limit", "2"}, {"sample-every", "6"}}) == kDone);
  };
  const Scratch here;
  trained_on(Device{}, here.path());
  for (const Device device : test::devices()) {
    if (device.type == DeviceType::cpu || !runtime(device.type).simulated()) continue;  // by the same kernels
    const Scratch there;
    trained_on(device, there.path());
    for (const char* name : {"step", "loss", "grad_norm", "lr", "tokens", "withheld"}) {
      CAPTURE(name);
      CHECK(test::metric(there.path(), name) == test::metric(here.path(), name));
    }
    CHECK(test::slurp(there / "bad_batches.jsonl") == test::slurp(here / "bad_batches.jsonl"));
    CHECK(test::slurp(there / "samples.txt") == test::slurp(here / "samples.txt"));
    CHECK(outcome(there.path()).digest == outcome(here.path()).digest);
  }
  const BadBatchLedger ledger(here / "bad_batches.jsonl");
  REQUIRE(ledger.entries().size() == 3);  // steps 3 and 9 withheld, and with step 10 back to step 8
  CHECK(ledger.rollbacks() == 1);
}

TEST_CASE("after a roll-back behind a save that failed, a stop saves the step it finds") {
  const Scratch out;
  // The save of step 8 finds no room; at step 10 the run goes back to step 4, and is stopped at step 6.
  static rlimit before;
  REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
  static int steps;
  static std::string latest;
  steps = 0, latest = out / "LATEST";
  const test::Intercept<kernels::AdvanceStepArgs> events(kernels::advance_step, nullptr, [](const kernels::AdvanceStepArgs&) {
    ++steps;
    for (int i = 0; steps == 8 && !fs::exists(latest) && i < 10000; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));  // step 4 is saved
    rlimit limit = before;
    if (steps == 8) limit.rlim_cur = 16384;
    if (steps == 8 || steps == 10) ::setrlimit(RLIMIT_FSIZE, &limit);
    if (steps == 12) std::raise(SIGUSR1);
  });
  const test::BadGradients bad({9, 10});
  CHECK(run(out.path(), {{"save-every", "4"}, {"nonfinite-limit", "2"}}) == kRequeue);
  ::setrlimit(RLIMIT_FSIZE, &before);
  CHECK(test::metric(out.path(), "step") == numbers(1, 6));
  CHECK(describe_checkpoint(out.path()).step == 6);
}

TEST_CASE("a sample is what the model of that step makes of the prompt, at temperature 0.8 from the 50 likeliest tokens") {
  const Scratch out;
  REQUIRE(run(out.path(), {{"sample-every", "12"}, {"sample-tokens", "200"}, {"sample-prompt", "ab"}, {"lr", "1e-5"}, {"seed", "5"}}) == kDone);
  const TrainedModel trained = load_trained_model(out.path(), Device{}, DType::f32);
  REQUIRE(trained.step == 12);
  const Tokenizer& tokenizer = *trained.tokenizer;
  std::string text = "ab";
  std::vector<int32_t> prompt = tokenizer.encode(text);
  prompt.insert(prompt.begin(), tokenizer.eot());
  generate_tokens(*trained.model, prompt, 200, {.temperature = 0.8, .top_k = 50, .seed = 5, .vocab = tokenizer.vocab_size()},
                  [&](int32_t token, const Tensor&) {
                    if (token == tokenizer.eot()) return false;
                    text += tokenizer.bytes_of(token);
                    return true;
                  });
  CHECK(text.size() > 20);
  CHECK(test::contains(test::slurp(out / "samples.txt"), text));
}

TEST_CASE("samples belong to the steps that count: they are cut back by a resume and by a roll-back") {
  const auto steps_of = [](const std::string& out) {
    std::vector<std::string> steps;
    std::istringstream lines(test::slurp(out + "/samples.txt"));
    for (std::string line; std::getline(lines, line);) {
      if (line.starts_with("step ")) steps.push_back(line.substr(5, line.find(',') - 5));
    }
    return steps;
  };
  const Flags flags = {{"save-every", "4"}, {"nonfinite-limit", "2"}, {"sample-every", "1"}, {"sample-tokens", "3"}};
  const Scratch rolled, resumed, plain;
  REQUIRE(run(plain.path(), flags) == kDone);
  CHECK(steps_of(plain.path()) == numbers(1, 12));
  {
    const test::BadGradients bad({6, 7});
    REQUIRE(run(rolled.path(), flags) == kDone);
  }
  CHECK(steps_of(rolled.path()) == numbers(1, 12));
  // Killed after step 7, whose state is on no disk.
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    static int steps = 0;
    const test::Intercept<kernels::AdvanceStepArgs> kill(
        kernels::advance_step,
        [](const kernels::AdvanceStepArgs&) {
          if (++steps == 8) std::raise(SIGKILL);
        },
        nullptr);
    run(resumed.path(), flags);
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  REQUIRE(WIFSIGNALED(status));
  REQUIRE(steps_of(resumed.path()) == numbers(1, 7));
  REQUIRE(run(resumed.path(), flags) == kDone);
  CHECK(test::slurp(resumed / "samples.txt") == test::slurp(plain / "samples.txt"));
}

TEST_CASE("a run stopped after any step and started again ends with the bits of one that was not") {
  const Flags variant = GENERATE(Flags{}, Flags{{"precision", "bf16"}, {"optimizer", "muon"}, {"deterministic", "true"}, {"schedule", "wsd"}});
  CAPTURE(variant.size());
  const Scratch whole;
  REQUIRE(run(whole.path(), variant) == kDone);
  const Outcome want = outcome(whole.path());
  REQUIRE(want.steps == numbers(1, 12));
  for (int k = 1; k <= 11; ++k) {
    CAPTURE(k);
    const Scratch out;
    {
      const test::StopAfterStep stop(k);
      REQUIRE(run(out.path(), variant) == kRequeue);
    }
    REQUIRE(test::metric(out.path(), "step") == numbers(1, k));
    REQUIRE(describe_checkpoint(out.path()).step == static_cast<uint64_t>(k));
    // A bare restart: all else comes from the run directory.
    REQUIRE(run(make_run_config("", {}, std::vector<FlagValue>{{"out", out.path()}, {"progress", "false"}})) == kDone);
    CHECK(outcome(out.path()) == want);
  }
}

TEST_CASE("stops again and again, one of them between two micro-steps, change nothing") {
  const Scratch whole, out;
  REQUIRE(run(whole.path()) == kDone);
  for (int k : {2, 3, 1}) {
    const test::StopAfterStep stop(k);
    REQUIRE(run(out.path()) == kRequeue);
  }
  CHECK(describe_checkpoint(out.path()).step == 6);
  {
    static int micro_steps;
    micro_steps = 0;
    const test::Intercept<kernels::CrossEntropyArgs> stop(kernels::cross_entropy, nullptr, [](const kernels::CrossEntropyArgs& args) {
      if (args.write_gradient && ++micro_steps == 3) std::raise(SIGUSR1);  // the first of step 8
    });
    REQUIRE(run(out.path()) == kRequeue);
    CHECK(micro_steps == 3);
  }
  CHECK(describe_checkpoint(out.path()).step == 7);
  REQUIRE(run(out.path(), {{"resume", "must"}}) == kDone);
  CHECK(outcome(out.path()) == outcome(whole.path()));
  // A finished run has nothing to do and leaves everything as it is.
  REQUIRE(run(out.path()) == kDone);
  CHECK(outcome(out.path()) == outcome(whole.path()));
}

TEST_CASE("evaluation and samples leave the training trajectory alone") {
  const Scratch plain, watched;
  REQUIRE(run(plain.path()) == kDone);
  REQUIRE(run(watched.path(),
              {{"val", test::data_set().val()}, {"eval-every", "4"}, {"sample-every", "5"}, {"sample-tokens", "3"}, {"save-every", "3"}}) == kDone);
  const Outcome a = outcome(plain.path()), b = outcome(watched.path());
  CHECK(a.losses == b.losses);
  CHECK(a.digest == b.digest);
  const std::vector<std::string> val = test::metric(watched.path(), "val_loss");
  for (size_t i = 0; i < val.size(); ++i) CHECK(val[i].empty() == ((i + 1) % 4 != 0));
  CHECK(std::stod(val[11]) < std::stod(val[3]));  // it does learn
  CHECK(fs::exists(watched / "samples.txt"));
}

TEST_CASE("the document mask and the seed reach the loss") {
  const Scratch a, b, c;
  REQUIRE(run(a.path(), {{"steps", "1"}, {"warmup", "0"}}) == kDone);
  REQUIRE(run(b.path(), {{"steps", "1"}, {"warmup", "0"}, {"doc-mask", "false"}}) == kDone);
  REQUIRE(run(c.path(), {{"steps", "1"}, {"warmup", "0"}, {"seed", "7"}}) == kDone);
  CHECK(test::metric(a.path(), "loss") != test::metric(b.path(), "loss"));
  CHECK(test::metric(a.path(), "loss") != test::metric(c.path(), "loss"));
}

TEST_CASE("a NaN gradient withholds one update, is written down, and the run goes on and resumes as it would have") {
  const Scratch whole, out;
  {
    const test::BadGradients bad({5});
    REQUIRE(run(whole.path()) == kDone);
  }
  const std::vector<std::string> withheld = test::metric(whole.path(), "withheld"), norms = test::metric(whole.path(), "grad_norm");
  for (size_t i = 0; i < 12; ++i) {
    CHECK(withheld[i] == (i == 4 ? "true" : ""));
    CHECK((norms[i] == "null") == (i == 4));
  }
  const BadBatchLedger ledger(whole / "bad_batches.jsonl");
  REQUIRE(ledger.entries().size() == 1);
  CHECK(ledger.entries()[0].step == 5);
  CHECK(ledger.entries()[0].first_sample == 16);
  CHECK(ledger.entries()[0].count == 4);
  CHECK(!ledger.entries()[0].skip);
  CHECK(fs::exists(ledger.entries()[0].file));
  {
    const test::BadGradients bad({5});
    const test::StopAfterStep stop(7);
    REQUIRE(run(out.path()) == kRequeue);
  }
  REQUIRE(run(out.path()) == kDone);
  CHECK(outcome(out.path()) == outcome(whole.path()));
}

TEST_CASE("gradients that stay NaN roll the run back to its checkpoint, on the data after them") {
  const Scratch rolled, chosen, spent;
  const Flags flags = {{"save-every", "4"}, {"nonfinite-limit", "2"}};
  {
    const test::BadGradients bad({6, 7});  // two in a row: back to step 4, samples 16 to 27 are left out
    REQUIRE(run(rolled.path(), flags) == kDone);
  }
  CHECK(test::metric(rolled.path(), "step") == numbers(1, 12));
  CHECK(test::metric(rolled.path(), "withheld") == std::vector<std::string>(12));
  const BadBatchLedger ledger(rolled / "bad_batches.jsonl");
  REQUIRE(ledger.entries().size() >= 2);
  const BadBatch& skipped = ledger.entries().back();
  CHECK(skipped.skip);
  CHECK(skipped.first_sample == 16);
  CHECK(skipped.count == 12);
  // The same as a run that knew from the start.
  fs::create_directories(chosen.path());
  BadBatchLedger(chosen / "bad_batches.jsonl").add({7, 16, 12, "shard", 0, "known", true});
  REQUIRE(run(chosen.path(), flags) == kDone);
  CHECK(test::metric(chosen.path(), "loss") == test::metric(rolled.path(), "loss"));
  CHECK(test::metric(chosen.path(), "grad_norm") == test::metric(rolled.path(), "grad_norm"));

  const test::BadGradients bad({5, 6, 7, 8, 9, 10, 11, 12});
  Flags one = flags;
  one["spike-rollbacks"] = "1";
  const std::string error = test::error_of([&] { run(spent.path(), one); }, ExitCode::runtime);
  for (const char* part : {"--spike-rollbacks 1 is used up", "since the checkpoint of step 4 are lost", "--lr", "--spike-z 6"}) {
    INFO(part << " in " << error);
    CHECK(test::contains(error, part));
  }
}

TEST_CASE("without a checkpoint to go back to, gradients that stay NaN end the run with advice") {
  const Scratch out;
  const test::BadGradients bad({2, 3});
  const std::string error = test::error_of([&] { run(out.path(), {{"nonfinite-limit", "2"}}); }, ExitCode::runtime);
  for (const char* part :
       {"step 3: ", "no checkpoint to go back to", "the 3 steps of this run are lost", "--save-every (now 0)", "--lr", "--spike-z 6"}) {
    INFO(part << " in " << error);
    CHECK(test::contains(error, part));
  }
  CHECK(fs::is_empty(out / "ckpt"));  // nothing was saved
  const test::BadGradients again({2, 3});
  const std::string watched = test::error_of([&] { run(out / "watched", {{"nonfinite-limit", "2"}, {"spike-z", "6"}}); }, ExitCode::runtime);
  CHECK(!test::contains(watched, "--spike-z"));  // it is on
}

TEST_CASE("samples on the list of bad batches are left out, also when they get there while the run is stopped") {
  const Scratch out, known, plain;
  REQUIRE(run(plain.path()) == kDone);
  {
    const test::StopAfterStep stop(4);
    REQUIRE(run(out.path()) == kRequeue);
  }
  const BadBatch bad{0, 21, 2, "shard", 0, "by hand", true};  // inside step 6's samples 20 to 23
  BadBatchLedger(out / "bad_batches.jsonl").add(bad);
  REQUIRE(run(out.path()) == kDone);
  BadBatchLedger(known / "bad_batches.jsonl").add(bad);
  REQUIRE(run(known.path()) == kDone);
  CHECK(outcome(out.path()) == outcome(known.path()));
  const auto first = [](const std::vector<std::string>& all, size_t n) {
    return std::vector<std::string>(all.begin(), all.begin() + static_cast<long>(n));
  };
  const auto losses = test::metric(out.path(), "loss"), others = test::metric(plain.path(), "loss");
  CHECK(first(losses, 5) == first(others, 5));
  CHECK(losses[5] != others[5]);
  CHECK(test::contains(describe_checkpoint(out.path()).scalars, "\"cursor\":51"));  // 48 used; step 6 starts at 23 instead of 20
}

}  // namespace
}  // namespace heddle
