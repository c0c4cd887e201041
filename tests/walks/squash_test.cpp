// squash: values, gradients, and what it refuses.
#include <cmath>

#include "core/ops/ops.h"
#include "kernels/api/check.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

DEVICE_TEST_CASE("squash is near x for small x and near the cap for large") {
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const std::vector<double> y = squash(test::tensor({0, 0.5, -0.5, 1e4, -1e4}, {5}, dtype), 2).to_vector();
  const double want = 2 * std::tanh(0.25), allowed = 4 * test::unit_roundoff(dtype);
  CHECK(y[0] == 0);
  CHECK(std::abs(y[1] - want) <= allowed);
  CHECK(y[2] == -y[1]);
  CHECK(y[3] == 2);
  CHECK(y[4] == -2);
}

DEVICE_TEST_CASE("gradients of squash") {
  CHECK_GRADIENTS(test::one([](auto in) { return squash(in[0], 1.5f); }), random_input({3, 7}, 1));
  CHECK_GRADIENTS(test::one([](auto in) { return squash(transpose(in[0], 0, 1), 0.5f); }), random_input({3, 7}, 1));
}

DEVICE_TEST_CASE("squash refuses a cap of zero and integers") {
  CHECK_THROWS_WITH(squash(test::zeros({2}), 0), Catch::Matchers::Contains("[squash]") && Catch::Matchers::Contains("cap is 0"));
  CHECK_THROWS_WITH(squash(test::zeros({2}, DType::i32), 1), Catch::Matchers::Contains("floating"));
}

}  // namespace
}  // namespace heddle
