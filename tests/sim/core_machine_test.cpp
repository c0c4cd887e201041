// The machine's own behaviour: what each operation does, and what is said when a kernel misuses it.
#include <string>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/sim/machine.h"
#include "tests/sim/core_kernels.h"
#include "tests/support/catch.h"

namespace heddle::test {
namespace {

// Runs `body` in every mode: fixed order with early and late async ops, and random orders.
template <class Body>
void in_every_mode(Body body) {
  const sim::Options before = sim::options();
  for (const auto& [mode, seed] :
       {std::pair{sim::AsyncMode::eager, 1}, {sim::AsyncMode::lazy, 1}, {sim::AsyncMode::random, 1}, {sim::AsyncMode::random, 2}}) {
    CAPTURE(static_cast<int>(mode), seed);
    sim::Options options = before;
    options.mode = mode;
    options.seed = static_cast<uint64_t>(seed);
    sim::set_options(options);
    body();
  }
  sim::set_options(before);
}

TEST_CASE("a block sums through shuffles and shared memory", "[sim]") {
  constexpr int kBlocks = 5;
  std::vector<float> x(kBlocks * 256), sums(kBlocks);
  for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 7);
  in_every_mode([&] {
    std::fill(sums.begin(), sums.end(), -1.0f);
    block_sum(x.data(), sums.data(), kBlocks);
    for (int b = 0; b < kBlocks; ++b) {
      float expected = 0;
      for (int i = 0; i < 256; ++i) expected += x[static_cast<size_t>(b * 256 + i)];
      CHECK(sums[static_cast<size_t>(b)] == expected);
    }
  });
}

}  // namespace
}  // namespace heddle::test
