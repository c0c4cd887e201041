// NaN, infinities and huge numbers put into one gradient: what never reaches a weight, what is clipped, and runs that help themselves.
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "tests/train/pretrain_support.h"
#include "tests/train/session.h"
#include "train/report/bad_batches.h"

namespace {

// Every fsync of this program passes here: the n-th from now kills it.
int syncs_left = 0, syncs_seen = 0;

}  // namespace

extern "C" int fsync(int handle) {
  ++syncs_seen;
  if (syncs_left > 0 && --syncs_left == 0) ::raise(SIGKILL);
  return static_cast<int>(::syscall(SYS_fsync, handle));
}

namespace heddle {
namespace {

namespace fs = std::filesystem;
using test::Flags;
using test::numbers;
using test::Outcome;
using test::outcome;
using test::run;
using test::Scratch;
using test::Session;

constexpr int kDone = 0;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

TEST_CASE("a NaN or an infinity anywhere in the gradient leaves every weight and moment as it was") {
  const bool muon = GENERATE(false, true);
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  CAPTURE(muon, static_cast<int>(dtype));
  const auto comm = local_communicator();
  Session session(muon, dtype, *comm);
  for (int i = 0; i < 3; ++i) REQUIRE(session.step(1).apply);
  int unchanged = 0, cases = 0;
  uint64_t applied = session.trainer().kept().adam_t;
  for (const float value : {kNaN, kInf, -kInf, -kNaN}) {
    for (const double place : {0.0, 0.123, 0.5, 0.9}) {
      for (const float clip : {0.0f, 1.0f}) {
        CAPTURE(value, place, clip);
        const std::string before = session.state();
        StepState report;
        {
          const test::BadGradients bad({1}, value, place);
          report = session.step(clip);
        }
        CHECK(!report.apply);
        CHECK(!report.finite);
        CHECK(std::isfinite(report.loss));
        CHECK(session.trainer().kept().adam_t == applied);
        unchanged += session.state() == before;
        ++cases;
      }
    }
    CHECK(session.step(1).apply);  // and training goes on
    ++applied;
  }
  CHECK(unchanged == cases);
  CHECK(cases == 32);
  CHECK(session.trainer().kept().skipped == 32);
}

// Loss spikes too: the ledger, the log and the device's counters tell of the same steps.
TEST_CASE("a step that counts as a spike was withheld, and no other was") {
  const Scratch folder;
  const std::string out = folder / "run";
  REQUIRE(run(out, {{"steps", "260"}, {"spike-z", "1.2"}, {"lr", "0.002"}, {"save-every", "20"}, {"keep-last", "2"}, {"spike-rollbacks", "1000"}}) ==
          kDone);
  const std::vector<std::string> steps = test::metric(out, "step"), withheld = test::metric(out, "withheld");
  const std::string ledger = test::slurp(out + "/bad_batches.jsonl");
  int both = 0, of_loss = 0;
  for (size_t i = 0; i < steps.size(); ++i) {
    const size_t line = ledger.find(concat("\"step\":", steps[i], ","));
    CAPTURE(steps[i]);
    CHECK((line != std::string::npos) == !withheld[i].empty());
    if (line == std::string::npos) continue;
    ++both;
    of_loss += ledger.find("loss", line) < ledger.find('\n', line);
  }
  CHECK(both > 5);
  CHECK(of_loss > 2);
  CHECK(ledger.find("\"skip\":true") == std::string::npos);  // no roll-back: every step is in the log
}

TEST_CASE("1e30 in the gradient is clipped; without clipping the update is withheld, since its square is no f32") {
  const bool muon = GENERATE(false, true);
  CAPTURE(muon);
  const auto comm = local_communicator();
  Session session(muon, DType::f32, *comm);
  for (int i = 0; i < 3; ++i) REQUIRE(session.step(1).apply);
  for (const float value : {1e30f, -1e30f, 1e20f, 3e38f}) {
    CAPTURE(value);
    const std::string before = session.state();
    {
      const test::BadGradients bad({1}, value);
      const StepState report = session.step(0);
      CHECK(!report.apply);
      CHECK(!report.finite);
      CHECK(report.grad_norm == std::abs(value));
    }
    CHECK(session.state() == before);
    {
      const test::BadGradients bad({1}, value);
      const StepState report = session.step(1);
      CHECK(report.apply);
      CHECK(report.finite);
    }
    CHECK(session.state() != before);
    CHECK(session.all_finite());
  }
  {
    const test::BadGradients bad({1}, 1e18f);  // large, and its square is finite: applied
    CHECK(session.step(0).apply);
  }
  CHECK(session.all_finite());
}

TEST_CASE("a huge gradient without clipping is written down and, when it stays, rolled back like a NaN") {
  const Scratch out;
  {
    const test::BadGradients bad({6, 7}, 1e30f);
    REQUIRE(run(out.path(), {{"save-every", "4"}, {"nonfinite-limit", "2"}, {"grad-clip", "0"}}) == kDone);
  }
  CHECK(test::metric(out.path(), "step") == numbers(1, 12));
  const BadBatchLedger ledger(out / "bad_batches.jsonl");
  REQUIRE(ledger.entries().size() == 2);
  CHECK(!ledger.entries()[0].skip);
  CHECK(ledger.entries()[1].skip);
  CHECK(ledger.rollbacks() == 1);
}

TEST_CASE("a spike that stays is withheld, rolled back and left behind without a hand") {
  const Scratch out;
  const std::string said = [&] {
    const test::BadGradients bad({131, 132, 133, 134, 135, 140}, 50);  // a hundred times the norm that is usual here; the last one comes alone
    return test::said_by(test::run_config(out.path(), {{"steps", "150"}, {"save-every", "20"}, {"spike-z", "6"}}));
  }();
  CHECK(test::contains(said, "rolled back from step 135 to 120: "));
  CHECK(test::contains(said, "samples [480, 540) are left out"));
  CHECK(test::metric(out.path(), "step") == numbers(1, 150));
  const BadBatchLedger ledger(out / "bad_batches.jsonl");
  // Four withheld; the fifth in a row goes back to step 120; one more that is withheld alone. Nothing else.
  REQUIRE(ledger.entries().size() == 6);
  CHECK(ledger.rollbacks() == 1);
  const BadBatch& skipped = ledger.entries()[4];
  CHECK(skipped.skip);
  CHECK(skipped.step == 135);
  CHECK(skipped.first_sample == 120 * 4);
  CHECK(skipped.count == 15 * 4);
  CHECK(test::contains(skipped.reason, "deviations above"));
  CHECK(!ledger.entries()[5].skip);
}

// The process dies at each fsync of a run that has to roll back, and is started again: the roll-back, its list of data and its budget are the same.
TEST_CASE("killed at every fsync around a roll-back, the run ends with the bits of one that was not") {
  const Flags flags = {{"save-every", "4"}, {"nonfinite-limit", "2"}};
  const std::vector<uint64_t> positions = {21, 26};  // in the samples of steps 6 and 7
  const auto make = [&](const std::string& out) {
    const test::BadSamples bad(test::data_set().train(), 32, positions);
    return run(out, flags);
  };
  const Scratch whole;
  syncs_seen = 0;
  REQUIRE(make(whole.path()) == kDone);
  const int syncs = syncs_seen;
  const Outcome want = outcome(whole.path());
  const std::vector<BadBatch> want_list = BadBatchLedger(whole / "bad_batches.jsonl").entries();
  REQUIRE(want.steps == numbers(1, 12));
  REQUIRE(want_list.size() == 2);
  REQUIRE(want_list[1].skip);
  REQUIRE(syncs > 30);
  int equal = 0;
  for (int at = 1; at <= syncs; ++at) {
    CAPTURE(at, syncs);
    const Scratch out;
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      syncs_left = at;
      try {
        make(out.path());
      } catch (...) {
      }
      ::_exit(1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGKILL);
    REQUIRE(make(out.path()) == kDone);
    CHECK(outcome(out.path()) == want);
    CHECK(BadBatchLedger(out / "bad_batches.jsonl").entries() == want_list);
    equal += outcome(out.path()) == want;
  }
  std::printf("killed at each of %d fsyncs of a run with a roll-back: %d equal\n", syncs, equal);
}

}  // namespace
}  // namespace heddle
