// Softmax cross entropy against float64.
#include "kernels/api/cross_entropy.h"

#include <limits>

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/cross_entropy.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::kFloating;
using test::run;

Buffer make_targets(int64_t n, int64_t v, int32_t ignore_index) {
  Buffer targets(DType::i32, {n});
  return targets.fill([&](int64_t i) { return static_cast<double>(i % 5 == 3 ? ignore_index : (7 * i + 2) % v); });
}

// What an operand's rounded exponent, the exp itself (2 ulp), its sum and the factors after it add up to.
double terms_of(int64_t v) {
  return static_cast<double>(v) + 16;
}

TEST_CASE("cross entropy: loss, nll and gradient, dtypes, vocabularies, z-loss, ignored rows", "[cross_entropy]") {
  StepState step;
  step.loss_scale = 0.125f;
  int variant = 0;
  for (DType dtype : kFloating) {
    for (const auto& [n, v] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {6, 2}, {9, 65}, {4, 1024}, {5, 2051}}) {
      for (double spread : {1.0, 30.0}) {
        for (float z_loss : {0.0f, 1e-2f}) {
          for (bool write_gradient : {false, true}) {
            ++variant;
            const int32_t ignore_index = variant % 2 ? -1 : -100;
            Buffer logits(dtype, {n, v}, {.padding = 3, .offset = 1}), losses(accumulator_of(dtype), {n}), nll = losses;
            logits.normal(static_cast<uint32_t>(variant), 5, spread);
            const Buffer targets = make_targets(n, v, ignore_index), before = logits;
            CrossEntropyArgs args{logits.view(), targets.view(), losses.view(), nll.view(), ignore_index, z_loss, 0.5f, write_gradient};
            if (variant % 3) args.step = &step;
            const oracle::CrossEntropyResult want = oracle::cross_entropy(args);
            run(cross_entropy, args);
            INFO(shape_text(logits.view()) << " z " << z_loss << " spread " << spread);
            const Bound sums{accumulator_of(dtype), terms_of(v)};
            CHECK_CLOSE(losses.view(), want.losses.want, want.losses.magnitude, sums);
            CHECK_CLOSE(nll.view(), want.nll.want, want.nll.magnitude, sums);
            if (write_gradient) {
              CHECK_CLOSE(logits.view(), want.gradient.want, want.gradient.magnitude, Bound{dtype, terms_of(v)});
              CHECK(logits.guards_intact());
            } else {
              CHECK(logits == before);
            }
            CHECK((losses.guards_intact() && nll.guards_intact()));
          }
        }
      }
    }
  }
}

TEST_CASE("cross entropy: the gradient is that of the loss, by central differences in f64", "[cross_entropy]") {
  const int64_t n = 2, v = 6;
  const int32_t targets[] = {4, 0};
  Buffer logits(DType::f64, {n, v}), losses(DType::f64, {n});
  logits.normal(1, 0, 2);
  CrossEntropyArgs args{logits.view(), make_view(targets, {n}), losses.view(), {}, -1, 0.05f, 1, false};
  const auto total = [&] {
    run(cross_entropy, args);
    return test::element(losses.view(), 0) + test::element(losses.view(), 1);
  };
  std::vector<double> slopes;
  for (int64_t i = 0; i < n * v; ++i) {
    const double at = test::element(logits.view(), i), h = 1e-5;
    logits.put(i, at + h);
    const double above = total();
    logits.put(i, at - h);
    slopes.push_back((above - total()) / (2 * h));
    logits.put(i, at);
  }
  args.write_gradient = true;
  run(cross_entropy, args);
  for (int64_t i = 0; i < n * v; ++i) CHECK(std::abs(test::element(logits.view(), i) - slopes[static_cast<size_t>(i)]) < 1e-8);
}

TEST_CASE("cross entropy: masked entries, overflow and NaN", "[cross_entropy]") {
  constexpr float inf = std::numeric_limits<float>::infinity();
  const int64_t v = 2100;  // masked entries fill whole chunks
  const auto loss_of = [&](std::vector<float>& row, int32_t target) {
    float loss = 0;
    run(cross_entropy, CrossEntropyArgs{make_view(row.data(), {1, v}), make_view(&target, {1}), make_view(&loss, {1}), {}, -1, 0, 1, true});
    return loss;
  };
  std::vector<float> row(static_cast<size_t>(v), -inf);
  row[2000] = 3e38f;
  row[2001] = 3e38f;
  CHECK(std::abs(loss_of(row, 2001) - std::log(2.0f)) < 1e-6f);
  CHECK(row[0] == 0);
  CHECK(row[2000] == 0.5f);
  CHECK(row[2001] == -0.5f);
  for (size_t place : {size_t{0}, size_t{1030}, size_t{2099}}) {
    std::vector<float> bad(static_cast<size_t>(v), 1.0f);
    bad[place] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(loss_of(bad, 5)));
    std::vector<float> alone(static_cast<size_t>(v), -inf);
    alone[place] = std::numeric_limits<float>::quiet_NaN();
    CHECK(std::isnan(loss_of(alone, 5)));
  }
}

TEST_CASE("cross entropy: bits do not depend on the number of threads", "[cross_entropy]") {
  for (const auto& [n, v] : std::vector<std::pair<int64_t, int64_t>>{{700, 65}, {11, 5003}}) {
    const Buffer targets = make_targets(n, v, -1);
    Buffer start(DType::f32, {n, v});
    start.normal(1, 0, 3);
    CHECK(test::same_on_any_thread_count([&, n = n] {
      Buffer logits = start, losses(DType::f32, {n});
      run(cross_entropy, CrossEntropyArgs{logits.view(), targets.view(), losses.view(), {}, -1, 1e-4f, 1, true});
      return std::vector{logits, losses};
    }));
  }
}

TEST_CASE("cross entropy: a bad target is an Error that names the row, and nothing is written", "[cross_entropy]") {
  Buffer logits(DType::f32, {4, 9}), losses(DType::f32, {4});
  logits.normal(1);
  const Buffer before = logits;
  for (int32_t bad : {9, -2}) {
    const int32_t targets[] = {0, -1, 8, bad};
    const CrossEntropyArgs args{logits.view(), make_view(targets, {4}), losses.view(), {}, -1, 0, 1, true};
    CHECK(test::contains(test::error_of(cross_entropy, args), concat("targets[3] = ", bad, ", V = 9")));
    CHECK(logits == before);
  }
  const CrossEntropyArgs args{logits.view(), losses.view(), losses.view(), {}};
  CHECK(test::contains(test::error_of(cross_entropy, args), "targets f32 (4) must be i32"));
}

}  // namespace
}  // namespace heddle::kernels
