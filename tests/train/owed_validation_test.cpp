// Stops in the middle of a validation: its figures come all the same, later.
#include "kernels/api/cross_entropy.h"
#include "tests/train/pretrain_support.h"

namespace heddle {
namespace {

using test::Flags;
using test::run;
using test::Scratch;

constexpr int kDone = 0, kRequeue = static_cast<int>(ExitCode::requeue);

TEST_CASE("a validation that a stop cuts short is made up for by the next start, also the last one") {
  const Flags flags = {{"val", test::data_set().val()}, {"eval-every", "5"}, {"steps", "12"}, {"log-every", "1"}};
  const Scratch whole, out;
  REQUIRE(run(whole.path(), flags) == kDone);
  static bool armed;  // for the second batch of the next validation
  static int batches;
  const test::Intercept<kernels::CrossEntropyArgs> stop(kernels::cross_entropy, nullptr, [](const kernels::CrossEntropyArgs& args) {
    if (args.write_gradient) {
      armed = true, batches = 0;
    } else if (armed && ++batches == 2) {
      armed = false;
      std::raise(SIGUSR1);
    }
  });
  const auto records = [&](const char* name) {
    std::vector<std::string> all;
    for (const std::string& value : test::metric(out.path(), name)) {
      if (!value.empty()) all.push_back(value);
    }
    return all;
  };
  for (const size_t validations : {0, 1, 2}) {  // stopped in the middle of that of step 5, 10 and 12
    armed = false;                              // the one that is owed passes
    REQUIRE(run(out.path(), flags) == kRequeue);
    CHECK(records("val_loss").size() == validations);
    CHECK(records("val_stopped").size() == 1);
  }
  CHECK(describe_checkpoint(out.path()).step == 12);
  armed = true, batches = 0;
  REQUIRE(run(out.path(), flags) == kRequeue);  // stopped in the middle of what it makes up for: still owed
  CHECK(records("val_loss").size() == 2);
  armed = false;
  REQUIRE(run(out.path(), flags) == kDone);
  CHECK(records("val_loss").size() == 3);
  for (const char* name : {"step", "loss", "val_loss", "val_bits_per_byte", "val_stopped"}) {
    CHECK(test::metric(out.path(), name) == test::metric(whole.path(), name));
  }
  CHECK(digest(out.path()) == digest(whole.path()));
  const std::string record = test::slurp(out / "metrics.jsonl");
  REQUIRE(run(out.path(), flags) == kDone);  // nothing is owed any more
  CHECK(test::slurp(out / "metrics.jsonl") == record);
}

}  // namespace
}  // namespace heddle
