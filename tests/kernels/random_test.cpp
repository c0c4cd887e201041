// Normal numbers and dropout: moments, sharding, masks.
#include "kernels/api/random.h"

#include "tests/kernels/kernel_case.h"

namespace heddle::kernels {
namespace {

using test::Buffer;
using test::kDevice;
using test::kFloating;
using test::run;

std::vector<double> normals(int64_t n, const RngKey& key, uint64_t first = 0, DType dtype = DType::f32, float mean = 0, float std = 1,
                            int64_t offset = 0) {
  Buffer out(dtype, {n}, {.offset = offset});
  run(normal, NormalArgs{out.view(), key, first, mean, std});
  CHECK(out.guards_intact());
  return test::values(out.view());
}

TEST_CASE("normal: moments and tails", "[random]") {
  const int64_t n = 400000;
  const std::vector<double> x = normals(n, {1, RngPurpose::init}, 0, DType::f32, 0.5f, 2.0f);
  double moment[5] = {};
  int64_t beyond_two = 0;
  for (double v : x) {
    const double z = (v - 0.5) / 2;
    for (int k = 1; k <= 4; ++k) moment[k] += std::pow(z, k) / static_cast<double>(n);
    beyond_two += std::abs(z) > 2;
  }
  // Five standard errors: the k-th moment of n samples has variance (E z^2k - (E z^k)^2) / n.
  const double root = std::sqrt(static_cast<double>(n));
  CHECK(std::abs(moment[1]) < 5 * 1 / root);
  CHECK(std::abs(moment[2] - 1) < 5 * std::sqrt(2.0) / root);
  CHECK(std::abs(moment[3]) < 5 * std::sqrt(15.0) / root);
  CHECK(std::abs(moment[4] - 3) < 5 * std::sqrt(96.0) / root);
  const double tail = 0.04550026389635842;
  CHECK(std::abs(static_cast<double>(beyond_two) / static_cast<double>(n) - tail) < 5 * std::sqrt(tail * (1 - tail)) / root);
  // neighbours, and the halves of a Box-Muller pair, are uncorrelated
  for (int64_t lag : {1, 2, 4}) {
    double covariance = 0;
    for (int64_t i = 0; i + lag < n; ++i) covariance += (x[static_cast<size_t>(i)] - 0.5) * (x[static_cast<size_t>(i + lag)] - 0.5) / 4;
    CHECK(std::abs(covariance / static_cast<double>(n)) < 5 / root);
  }
}

TEST_CASE("normal: element i is a function of the key and its index in the unsharded tensor", "[random]") {
  const RngKey key{42, RngPurpose::init, 7};
  const std::vector<double> whole = normals(5000, key);
  for (uint64_t first : {0, 1, 2, 3, 5, 1021, 1024}) {
    for (int64_t n : {1, 2, 3, 1023, 1024, 1025, 3000}) {
      const std::vector<double> part = normals(n, key, first);
      CHECK(std::equal(part.begin(), part.end(), whole.begin() + static_cast<int64_t>(first)));
    }
  }
  const Philox::Block block = Philox::draw(key, 3);
  CHECK(whole[12] == Philox::normal(block[0], block[1])[0]);
  CHECK(whole[15] == Philox::normal(block[2], block[3])[1]);
  int64_t differ = 0;  // a GPU's sine may be rounded the other way, once in some million
  for (uint64_t i = 0; i < 5000; i += 2) {
    const Philox::Block words = Philox::draw(key, i / 4);
    const std::array<float, 2> pair = Philox::normal(words[i % 4], words[i % 4 + 1]);
    for (size_t half = 0; half < 2; ++half) {
      const double got = whole[i + half], want = pair[half];
      differ += got != want;
      CHECK(std::abs(got - want) <= (kDevice == DeviceType::cpu ? 0 : std::abs(want) * 0x1p-23 + 1e-14));
    }
  }
  CHECK(differ <= 2);
  RngKey other = key;
  other.name = 8;
  CHECK(normals(100, other) != std::vector<double>(whole.begin(), whole.begin() + 100));
  // the same number in every dtype, rounded
  for (DType dtype : kFloating) {
    for (int64_t offset : {0, 1, 2, 3, 4}) {
      for (uint64_t first : {0, 1, 6}) {
        const std::vector<double> stored = normals(100, key, first, dtype, 0, 1, offset);
        for (size_t i = 0; i < 100; ++i) {
          const double want = whole[first + i];
          REQUIRE(stored[i] == (dtype == DType::bf16 ? static_cast<float>(bf16(static_cast<float>(want))) : want));
        }
      }
    }
  }
}

TEST_CASE("dropout: any alignment of the shard, of x and of out, any sink", "[random]") {
  const RngKey key{3, RngPurpose::dropout, 4, 11};
  const int64_t whole = 700, n = 517;
  for (DType dtype : kFloating) {
    Buffer x(dtype, {whole});
    x.normal(2, 3, 1);
    for (DType out_type : {dtype, accumulator_of(dtype)}) {
      Buffer y(out_type, {whole});
      run(dropout, DropoutArgs{x.view(), {y.view()}, key, 0, 0.4f});
      for (int64_t first : {0, 1, 3, 4, 6, 8, 100}) {
        for (int64_t offset : {0, 1, 2, 4, 7}) {
          for (bool accumulate : {false, true}) {
            Buffer part(out_type, {n}, {.offset = offset});
            if (accumulate) part.fill([](int64_t i) { return static_cast<double>(i % 8); });
            View from = x.view();
            from.data += first * size_of(dtype);
            from.shape[0] = n;
            run(dropout, DropoutArgs{from, {part.view(), accumulate}, key, static_cast<uint64_t>(first), 0.4f});
            CHECK(part.guards_intact());
            int64_t wrong = 0;
            for (int64_t i = 0; i < n; ++i) {
              const double kept = test::element(y.view(), first + i), got = test::element(part.view(), i);
              const double want = accumulate ? static_cast<double>(i % 8) + kept : kept;
              // y was rounded once to its dtype, the sum once more.
              wrong += accumulate ? std::abs(got - want) > test::unit_roundoff(out_type) * (std::abs(kept) + std::abs(want)) * 1.01 : got != want;
            }
            CHECK(wrong == 0);
          }
        }
      }
    }
  }
}

TEST_CASE("random: no elements, no launch, wherever the shard begins") {
  const Buffer nothing(DType::f32, {0});
  for (uint64_t first = 0; first < 9; ++first) {
    run(dropout, DropoutArgs{nothing.view(), {nothing.view()}, {3, RngPurpose::dropout, 4, 11}, first, 0.4f});
    run(normal, NormalArgs{nothing.view(), {1, RngPurpose::init}, first});
    CHECK(nothing.guards_intact());
  }
}

TEST_CASE("dropout: keep rate, scale, element by element", "[random]") {
  const RngKey key{9, RngPurpose::dropout, 2, 77};
  for (DType dtype : kFloating) {
    for (float p : {0.0f, 0.1f, 0.75f}) {
      const int64_t n = 40001;
      const uint64_t first = 6;
      Buffer x(dtype, {n}), y(dtype, {n});
      x.normal(1, 2, 1);
      run(dropout, DropoutArgs{x.view(), {y.view()}, key, first, p});
      CHECK(y.guards_intact());
      int64_t kept = 0;
      int64_t wrong = 0;
      for (int64_t i = 0; i < n; ++i) {
        const uint64_t e = first + static_cast<uint64_t>(i);
        const bool keep = Philox::uniform(Philox::draw(key, e / 4)[e % 4]) >= p;
        kept += keep;
        const double in = test::element(x.view(), i), want = keep ? in / (1.0 - static_cast<double>(p)) : 0, got = test::element(y.view(), i);
        wrong += std::abs(got - want) > std::abs(want) * (2 * test::unit_roundoff(dtype) + (dtype == DType::f64 ? 0 : 0x1p-22));
      }
      CHECK(wrong == 0);
      const double rate = static_cast<double>(kept) / static_cast<double>(n);
      CHECK(std::abs(rate - (1 - static_cast<double>(p))) <=
            5 * std::sqrt(static_cast<double>(p) * (1 - static_cast<double>(p)) / static_cast<double>(n)));
      if (p == 0.0f) CHECK(test::values(y.view()) == test::values(x.view()));
    }
  }
}

TEST_CASE("dropout: backward sees forward's mask; step, slices, sinks, in place", "[random]") {
  StepState step;
  step.rng_stream = 123;
  const RngKey key{5, RngPurpose::dropout, 1, 0};
  const int64_t n = 5000;
  std::vector<float> ones(static_cast<size_t>(n), 1.0f);
  Buffer y(DType::f32, {n}), dx(DType::f32, {n});
  run(dropout, DropoutArgs{make_view(ones.data(), {n}), {y.view()}, key, 0, 0.3f, &step});
  Buffer dy(DType::f32, {n});
  dy.normal(3, 10, 1);
  run(dropout, DropoutArgs{dy.view(), {dx.view()}, key, 0, 0.3f, &step});
  for (int64_t i = 0; i < n; ++i) REQUIRE((test::element(y.view(), i) == 0) == (test::element(dx.view(), i) == 0));

  RngKey explicit_key = key;
  explicit_key.stream = 123;
  Buffer same(DType::f32, {n}), other(DType::f32, {n});
  run(dropout, DropoutArgs{dy.view(), {same.view()}, explicit_key, 0, 0.3f});
  CHECK(same == dx);
  step.rng_stream = 124;
  run(dropout, DropoutArgs{dy.view(), {other.view()}, key, 0, 0.3f, &step});
  CHECK_FALSE(other == dx);

  // a slice that starts inside a group of four
  View tail = dy.view();
  tail.data += 1001 * 4;
  tail.shape[0] = n - 1001;
  Buffer part(DType::f32, {n - 1001});
  run(dropout, DropoutArgs{tail, {part.view()}, explicit_key, 1001, 0.3f});
  for (int64_t i = 0; i < n - 1001; ++i) REQUIRE(test::element(part.view(), i) == test::element(dx.view(), i + 1001));

  Buffer sum(DType::f32, {n});
  sum.fill([](int64_t) { return 4; });
  run(dropout, DropoutArgs{dy.view(), {sum.view(), true}, explicit_key, 0, 0.3f});
  for (int64_t i = 0; i < n; ++i) REQUIRE(test::element(sum.view(), i) == static_cast<float>(4 + test::element(dx.view(), i)));
  run(dropout, DropoutArgs{dy.view(), {dy.view()}, explicit_key, 0, 0.3f});
  CHECK(dy == dx);
}

TEST_CASE("random: bits do not depend on the number of threads; p outside [0, 1) is refused", "[random]") {
  Buffer x(DType::f32, {70001});
  x.normal(1);
  CHECK(test::same_on_any_thread_count([&] {
    Buffer z(DType::f32, {70001}), y(DType::f32, {70001});
    run(normal, NormalArgs{z.view(), {1, RngPurpose::init}, 3});
    run(dropout, DropoutArgs{x.view(), {y.view()}, {1, RngPurpose::dropout}, 3, 0.5f});
    return std::vector{z, y};
  }));
  CHECK(test::contains(test::error_of(dropout, DropoutArgs{x.view(), {x.view()}, {}, 0, 1.0f}), "p = 1 is not within [0, 1)"));
  CHECK(test::contains(test::error_of(dropout, DropoutArgs{x.view(), {x.view()}, {}, 0, -0.1f}), "p = -0.1"));
}

}  // namespace
}  // namespace heddle::kernels
