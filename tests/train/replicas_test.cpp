// One bit that turns in the memory of one rank is found at the next comparison, and the rank is named. mpirun starts it, every rank runs every case.
#include <random>

#include "parallel/control.h"
#include "tests/support/catch.h"
#include "train/replicas.h"

namespace heddle {
namespace {

Control& control() {
  static const std::unique_ptr<Control> world = world_control();
  return *world;
}

// What a failing comparison says; "" for none.
std::string complaint(const StateDict& state, const View& values) {
  try {
    require_equal_replicas(state, values, control(), {}, 9, 5);
  } catch (const Error& e) {
    CHECK(e.code() == ExitCode::runtime);
    return e.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

struct Numbers {
  std::vector<float> value;
  StateDict::Entry entry;
  Numbers(const std::string& name, int64_t begin, int64_t end, int64_t global) : value(static_cast<size_t>(end - begin)) {
    for (size_t i = 0; i < value.size(); ++i) value[i] = static_cast<float>(begin) + static_cast<float>(i) * 0.5f;
    entry = {name, make_view(reinterpret_cast<std::byte*>(value.data()), DType::f32, {end - begin}), {global}, {{begin, end}}};
  }
  void flip(size_t bit) { reinterpret_cast<unsigned char*>(value.data())[bit / 8] ^= static_cast<unsigned char>(1 << (bit % 8)); }
  size_t bits() const { return value.size() * 32; }
};

TEST_CASE("100 random bits, each on one rank, are found and the rank is named") {
  std::mt19937_64 random(3);  // the same choices on every rank
  for (int round = 0; round < 100; ++round) {
    Numbers whole("model.w", 0, 64, 64), values("values", 0, 64, 64), slice("optim.m", 8 * control().rank(), 8 * control().rank() + 8, 64);
    const StateDict state{{whole.entry, slice.entry}, ""};  // slices differ, as they may
    CHECK(complaint(state, values.entry.data).empty());
    Numbers& hit = random() % 2 == 0 ? whole : values;
    const int rank = static_cast<int>(random() % static_cast<uint64_t>(control().size()));
    const size_t bit = random() % hit.bits();
    if (control().rank() == rank) hit.flip(bit);
    const std::string text = complaint(state, values.entry.data);
    INFO(text);
    CHECK(has(text, &hit == &whole ? "bits of model.w" : "bits of the weights in use"));
    CHECK(has(text, concat("rank ", rank, " (")));
    CHECK(has(text, "the checkpoint of step 5"));
    // Of two nobody knows which one is right.
    CHECK(has(text, control().size() == 2 ? "hold different bits" : "than its replicas"));
    for (int other = 0; other < control().size() && control().size() > 2; ++other) CHECK(has(text, concat("rank ", other, " (")) == (other == rank));
  }
}

}  // namespace
}  // namespace heddle
