// Muon's halves around its matrix products, and the division by the norm, against float64.
#include "kernels/api/optimizer.h"
#include "tests/kernels/kernel_case.h"
#include "tests/oracles/optimizer.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::kFloating;
using test::run;

TEST_CASE("muon: momentum and update", "[optimizer]") {
  for (DType type : kFloating) {
    for (int64_t n : {int64_t{1}, int64_t{1100}, int64_t{20003}}) {
      for (bool nesterov : {false, true}) {
        const DType wide = accumulator_of(type);
        Buffer grad(wide, {n}), momentum(wide, {n}), out(type, {n}), value(type, {n}), master(wide, {n});
        grad.normal(1);
        momentum.normal(2);
        master.normal(3);
        StepState step;
        step.clip_scale = 0.5f;
        step.lr = 0.25f;
        const double beta = 0.95f;
        oracle::Values next(n), direction(n), moved(n);
        for (int64_t i = 0; i < n; ++i) {
          const double g = (1 - beta) * 0.5 * test::element(grad.view(), i), old = beta * test::element(momentum.view(), i);
          next.add(i, g);
          next.add(i, old);
          const double size = std::abs(g) + std::abs(old);
          direction.add(i, nesterov ? g + beta * (g + old) : g + old, nesterov ? std::abs(g) + beta * size : size);
        }
        run(muon_momentum, MuonMomentumArgs{grad.view(), momentum.view(), out.view(), 0.95f, nesterov, &step});
        CHECK_CLOSE(momentum.view(), next.want, next.magnitude, Bound{wide, 4});
        CHECK_CLOSE(out.view(), direction.want, direction.magnitude, Bound{type, 6});
        for (int64_t i = 0; i < n; ++i) {
          const double rate = 0.04f * 0.25, old = test::element(master.view(), i), update = 3 * test::element(out.view(), i), decay = 0.5 * old;
          moved.add(i, old - rate * (update + decay), std::abs(old) + rate * (std::abs(update) + std::abs(decay)));
        }
        run(muon_apply, MuonApplyArgs{value.view(), master.view(), out.view(), {0.04f, 0.5f}, 3, &step});
        CHECK_CLOSE(master.view(), moved.want, moved.magnitude, Bound{wide, 5});
        for (int64_t i = 0; i < n; ++i) REQUIRE(test::element(value.view(), i) == oracle::rounded(type, test::element(master.view(), i)));
        CHECK((momentum.guards_intact() && out.guards_intact() && value.guards_intact() && master.guards_intact()));
      }
    }
  }
}

TEST_CASE("muon: no elements, no launch", "[optimizer]") {
  const StepState step;
  const Buffer nothing(DType::f32, {0});
  run(muon_momentum, MuonMomentumArgs{nothing.view(), nothing.view(), nothing.view(), 0.95f, true, &step});
  run(muon_apply, MuonApplyArgs{nothing.view(), nothing.view(), nothing.view(), {0.1f, 0.1f}, 2, &step});
  CHECK(nothing.guards_intact());
}

TEST_CASE("normalize: divides by the Frobenius norm, into either dtype, in place or not", "[optimizer]") {
  for (DType type : kFloating) {
    for (DType out_type : kFloating) {
      for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{0, 4}, {1, 1}, {1, 130}, {37, 65}, {129, 512}}) {
        for (bool in_place : {false, true}) {
          if (in_place && out_type != type) continue;
          const int64_t n = rows * columns;
          Buffer x(type, {rows, columns}), apart(out_type, {rows, columns});
          x.normal(1);
          Buffer& out = in_place ? x : apart;
          double squares = 0;
          for (double v : test::values(x.view())) squares += v * v;
          oracle::Values want(n);
          for (int64_t i = 0; i < n; ++i) want.add(i, test::element(x.view(), i) / (std::sqrt(squares) + 1e-7f));
          NormalizeArgs args{.x = x.view(), .out = out.view()};
          args.eps = 1e-7f;
          run(normalize, args);
          // f64: the sum of squares rounds as often as it has terms
          const bool wide = type == DType::f64 && out_type == DType::f64;
          CHECK_CLOSE(out.view(), want.want, want.magnitude,
                      Bound{wide                     ? DType::f64
                            : out_type == DType::f64 ? DType::f32
                                                     : out_type,
                            wide ? n + 3.0 : 4});
          CHECK(out.guards_intact());
        }
      }
    }
  }
}

TEST_CASE("normalize: the norm of a long array, of numbers whose squares overflow, and of zeros", "[optimizer]") {
  constexpr int64_t kRows = 1100, kColumns = 2048;  // more than 2^21 elements
  Buffer x(DType::f32, {kRows, kColumns}), out(DType::f32, {kRows, kColumns});
  x.fill([](int64_t i) { return static_cast<double>(i % 7 - 3); });
  double squares = 0;
  for (int64_t i = 0; i < kRows * kColumns; ++i) squares += static_cast<double>((i % 7 - 3) * (i % 7 - 3));
  run(normalize, NormalizeArgs{.x = x.view(), .out = out.view()});
  for (int64_t i : {int64_t{0}, int64_t{6}, kRows * kColumns - 2, kRows * kColumns - 1}) {
    const double want = static_cast<double>(i % 7 - 3) / (std::sqrt(squares) + 1e-7f);
    CHECK(std::abs(test::element(out.view(), i) - want) <= 4 * 0x1p-24 * std::abs(want));
  }
  Buffer large(DType::f32, {3, 3}), zero(DType::f32, {3, 3}), to(DType::f32, {3, 3});
  large.fill([](int64_t) { return 1e30; });
  run(normalize, NormalizeArgs{.x = large.view(), .out = to.view()});
  for (double v : test::values(to.view())) CHECK(std::abs(v - 1.0 / 3) <= 4 * 0x1p-24);
  zero.fill([](int64_t) { return 0; });
  run(normalize, NormalizeArgs{.x = zero.view(), .out = to.view()});
  CHECK(test::values(to.view()) == std::vector<double>(9, 0.0));
}

// Arrays of f32 that begin at multiples of 20 bytes, and not of 16.
TEST_CASE("muon: arrays at multiples of another number of bytes", "[optimizer]") {
  constexpr int64_t n = 130;
  const auto at_20 = [](const Buffer& room) {
    View v = room.view();
    v.shape[0] = n;
    const auto address = [&] { return reinterpret_cast<uintptr_t>(v.data); };
    while (address() % 20 != 0 || address() % 16 == 0) v.data += sizeof(float);
    return v;
  };
  const StepState step;
  const Buffer grad = Buffer(DType::f32, {n}).normal(1), momentum = Buffer(DType::f32, {n}).normal(2), out(DType::f32, {n});
  const Buffer rooms[3] = {Buffer(DType::f32, {n + 20}), Buffer(DType::f32, {n + 20}), Buffer(DType::f32, {n + 20})};
  const View moved[3] = {at_20(rooms[0]), at_20(rooms[1]), at_20(rooms[2])};
  for (size_t i = 0; i < 2; ++i) std::memcpy(moved[i].data, (i == 0 ? grad : momentum).view().data, sizeof(float) * n);
  run(muon_momentum, MuonMomentumArgs{grad.view(), momentum.view(), out.view(), 0.95f, true, &step});
  run(muon_momentum, MuonMomentumArgs{moved[0], moved[1], moved[2], 0.95f, true, &step});
  CHECK(test::values(moved[1]) == test::values(momentum.view()));
  CHECK(test::values(moved[2]) == test::values(out.view()));
}

#if defined(HEDDLE_TEST_CUDA)
TEST_CASE("normalize: a GPU refuses f64, and too little scratch", "[optimizer]") {
  const Buffer x = Buffer(DType::f64, {8}).normal(1), y = Buffer(DType::f32, {8}).normal(1);
  CHECK(test::contains(test::error_of(normalize, NormalizeArgs{.x = x.view(), .out = y.view()}), "f32 and bf16 only"));
  CHECK_THROWS_AS(normalize.candidates(test::kDevice)[0].run(NormalizeArgs{.x = y.view(), .out = y.view()}, Stream{}), Error);
}
#endif

}  // namespace
}  // namespace heddle::kernels
