// The functions of the SIMD vocabulary against <cmath> in float64, in units in the last place of f32.
#include "kernels/cpu/vec_internal.h"

#include <limits>

#include "tests/oracles/matmul.h"
#include "tests/support/catch.h"

namespace heddle::kernels {
namespace {

// Largest error of f over [low, high], in ulp of the f32 nearest to the true value, or of `floor` where that is larger.
template <class F, class G>
double worst_ulp(const F& f, const G& truth, double low, double high, double floor = 0) {
  constexpr int kSteps = 200000;
  double worst = 0;
  for (int i = 0; i <= kSteps; ++i) {
    const float x = static_cast<float>(low + (high - low) * i / kSteps);
    const float got = f(vec::broadcast(x))[0];
    const double want = truth(static_cast<double>(x));
    const float size = static_cast<float>(std::max(std::abs(want), floor));
    worst = std::max(worst, std::abs(got - want) / (std::nextafter(size, std::numeric_limits<float>::infinity()) - size));
  }
  return worst;
}

}  // namespace

TEST_CASE("vec: exp, sigmoid, tanh, gelu and its derivative keep the accuracy their header states") {
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  CHECK(worst_ulp([](vec::F32 x) { return vec::exp(x); }, [](double x) { return std::exp(x); }, -104, 88.7) <= 2);
  CHECK(worst_ulp([](vec::F32 x) { return vec::exp(x); }, [](double x) { return std::exp(x); }, -1, 1) <= 2);
  CHECK(worst_ulp([](vec::F32 x) { return vec::sigmoid(x); }, sigmoid, -80, 80) <= 3);
  CHECK(worst_ulp([](vec::F32 x) { return vec::sigmoid(x); }, sigmoid, -2, 2) <= 3);
  CHECK(worst_ulp([](vec::F32 x) { return vec::tanh(x); }, [](double x) { return std::tanh(x); }, -10, 10) <= 2);
  CHECK(worst_ulp([](vec::F32 x) { return vec::tanh(x); }, [](double x) { return std::tanh(x); }, -1, 1) <= 2);
  const auto log = [](vec::F32 x) { return vec::log(x); };
  for (double high : {1e-43, 1e-38, 1e-30, 0.9, 1.5, 20.0, 3e38})
    CHECK(worst_ulp(
              log, [](double x) { return std::log(x); }, high / 1e5, high) <= 2);
  CHECK(worst_ulp([](vec::F32 x) { return vec::gelu(x); }, oracle::gelu, -10, 10, 1) <= 4);
  CHECK(worst_ulp([](vec::F32 x) { return vec::gelu_derivative(x); }, oracle::gelu_derivative, -12, 12, 1) <= 4);
}

TEST_CASE("vec: special values come through") {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  const auto at = [](auto f, float x) { return f(vec::broadcast(x))[0]; };
  const auto exp = [](vec::F32 x) { return vec::exp(x); };
  CHECK(at(exp, 0.0f) == 1.0f);
  CHECK(at(exp, -inf) == 0.0f);
  CHECK(at(exp, -200.0f) == 0.0f);
  CHECK(at(exp, 200.0f) == inf);
  CHECK(at(exp, inf) == inf);
  CHECK(std::isnan(at(exp, nan)));
  CHECK(at(exp, -100.0f) > 0.0f);  // a denormal
  const auto tanh = [](vec::F32 x) { return vec::tanh(x); };
  CHECK(at(tanh, inf) == 1.0f);
  CHECK(at(tanh, -inf) == -1.0f);
  CHECK(std::isnan(at(tanh, nan)));
  const auto log = [](vec::F32 x) { return vec::log(x); };
  CHECK(at(log, 1.0f) == 0.0f);
  CHECK(at(log, 0.0f) == -inf);
  CHECK(at(log, -0.0f) == -inf);
  CHECK(at(log, inf) == inf);
  CHECK(std::isnan(at(log, -1.0f)));
  CHECK(std::isnan(at(log, -inf)));
  CHECK(std::isnan(at(log, nan)));
  const auto derivative = [](vec::F32 x) { return vec::gelu_derivative(x); };
  CHECK(at(derivative, 1e20f) == 1.0f);
  CHECK(std::abs(at(derivative, -1e20f)) < 1e-25f);
  CHECK(std::isnan(at(derivative, nan)));
  CHECK(std::signbit(vec::broadcast(-0.0f)[0]));
}

TEST_CASE("vec: bf16 is stored rounded to nearest even, NaN as NaN, and partial stores touch nothing else") {
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += 9973) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(bits));
    bf16 out[vec::lanes<bf16>];
    vec::store(out, vec::broadcast(x));
    REQUIRE(out[1].bits == bf16(x).bits);
  }
  float row[vec::lanes<float> + 1];
  std::fill(std::begin(row), std::end(row), 7.0f);
  vec::store_partial(row, vec::broadcast(1.0f), 3);
  CHECK((row[2] == 1.0f && row[3] == 7.0f));
  CHECK(vec::load_partial(row, 2)[2] == 0.0f);
}

TEST_CASE("vec: transpose swaps rows and lanes") {
  constexpr int n = vec::lanes<float>;
  vec::F32 row[n];
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) row[i][j] = static_cast<float>(i * n + j);
  }
  vec::transpose(row);
  int wrong = 0;
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) wrong += row[i][j] != static_cast<float>(j * n + i);
  }
  CHECK(wrong == 0);
}

}  // namespace heddle::kernels
