// NaN, infinities and huge numbers put into one gradient of one rank: all ranks withhold the step, or all take it, and stay equal. mpirun starts it,
// every rank runs every case; alone the cases pass over one rank.
#include <limits>

#include "kernels/api/embedding.h"
#include "parallel/control.h"
#include "tests/train/session.h"

namespace heddle {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();

Control& control() {
  static const std::unique_ptr<Control> world = world_control();
  return *world;
}
Communicator& world() {
  static const std::unique_ptr<Communicator> comm = control().communicator(Device{});
  return *comm;
}

bool all_equal(const std::string& mine) {
  for (const std::string& text : control().gather_text(mine)) {
    if (text != mine) return false;
  }
  return true;
}

// Every embedding gradient that this rank computes while one lives gets a bad number, before the ranks add theirs up.
class BadRank {
 public:
  BadRank(int rank, float value)
      : intercept_(kernels::embedding_backward, nullptr, [](const kernels::EmbeddingBackwardArgs& args) {
          if (here_) args.d_weight.to.as<float>()[0] = value_;
        }) {
    here_ = world().rank() == rank, value_ = value;
  }

 private:
  static inline bool here_ = false;
  static inline float value_ = 0;
  test::Intercept<kernels::EmbeddingBackwardArgs> intercept_;
};

TEST_CASE("a NaN or an infinity on one of the ranks withholds the step on all, and no state changes") {
  const bool muon = GENERATE(false, true), deterministic = GENERATE(false, true);
  CAPTURE(muon, deterministic, world().rank());
  test::Session session(muon, DType::f32, world(), deterministic);
  for (int i = 0; i < 3; ++i) REQUIRE(session.step(1).apply);
  for (int rank = 0; rank < world().size(); ++rank) {
    for (const float value : {kNaN, kInf, -kInf}) {
      CAPTURE(rank, value);
      const std::string before = session.state();
      const uint64_t applied = session.trainer().kept().adam_t;
      {
        const BadRank bad(rank, value);
        const StepState report = session.step(1);
        CHECK(!report.apply);
        CHECK(!report.finite);
      }
      CHECK(session.state() == before);
      CHECK(session.trainer().kept().adam_t == applied);
      CHECK(all_equal(session.state()));
      CHECK(session.step(1).apply);  // and training goes on, on all of them
      CHECK(session.state() != before);
      CHECK(all_equal(session.state()));
    }
  }
}

TEST_CASE("a loss above the limit withholds the step on all of the ranks") {
  const bool deterministic = GENERATE(false, true);
  test::Session session(false, DType::f32, world(), deterministic);
  const double loss = session.step(1).loss;
  const std::string before = session.state();
  CHECK(!session.step(1, static_cast<float>(loss / 2)).apply);
  CHECK(session.state() == before);
  CHECK(session.step(1, static_cast<float>(loss * 2)).apply);
  CHECK(session.state() != before);
  CHECK(all_equal(session.state()));
}

TEST_CASE("1e30 on one of the ranks is clipped on all alike") {
  test::Session session(false, DType::f32, world());
  for (int i = 0; i < 3; ++i) REQUIRE(session.step(1).apply);
  for (int rank = 0; rank < world().size(); ++rank) {
    CAPTURE(rank, world().rank());
    const std::string before = session.state();
    {
      const BadRank bad(rank, 1e30f);
      CHECK(session.step(1).apply);
    }
    CHECK(session.state() != before);
    CHECK(session.all_finite());
    CHECK(all_equal(session.state()));
  }
}

TEST_CASE("the tree of --deterministic gives the same bits whatever a message may hold") {
  test::Session whole(false, DType::f32, world(), true);
  const std::unique_ptr<Communicator> pieces = control().communicator(Device{}, {.most_bytes = 1000});
  test::Session cut(false, DType::f32, *pieces, true);
  for (int i = 0; i < 3; ++i) {
    whole.step(1), cut.step(1);
    CHECK(whole.state() == cut.state());
  }
}

}  // namespace
}  // namespace heddle
