// --minutes on several ranks: one clock sets the horizon of all. mpirun starts it, every rank runs every case; alone the cases pass over one rank.
#include "parallel/control.h"
#include "tests/train/pretrain_support.h"

namespace heddle {
namespace {

Control& control() {
  static const std::unique_ptr<Control> world = world_control();
  return *world;
}
std::string of_first(const std::string& mine) {
  return control().gather_text(mine).front();
}

TEST_CASE("ranks whose clocks go at different speeds train the horizon of the first") {
  const std::string zero = GENERATE("0", "1");
  const test::Scratch mine;
  const std::string folder = of_first(mine.path());
  const auto config = [&](const std::string& out, test::Flags more) {
    more.insert({{"data", of_first(test::data_set().train())}, {"val", of_first(test::data_set().val())}, {"eval-tokens", "640"}, {"zero", zero}});
    return test::run_config(folder + out, more);
  };
  REQUIRE(test::run_by(0.05 * (1 + control().rank()), config("/clock", {{"steps", ""}, {"minutes", "0.02"}, {"hang-timeout", "20s"}})) == 0);
  const size_t steps = std::stoul(of_first(std::to_string(test::metric(folder + "/clock", "step").size())));
  CHECK(steps >= 13);
  REQUIRE(test::run_by(0, config("/counted", {{"steps", std::to_string(steps)}})) == 0);
  const test::Outcome counted = test::outcome(folder + "/counted");
  CHECK(counted.steps.size() == steps);
  CHECK(test::outcome(folder + "/clock") == counted);
  control().barrier();  // the first rank's folder goes
}

}  // namespace
}  // namespace heddle
