// Rotary embedding against complex multiplication in float64.
#include "kernels/api/rope.h"

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/rope.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::kFloating;
using test::run;

// cos in the first half of a row, sin in the second.
Buffer make_table(int64_t positions, int64_t d, int64_t padding = 3) {
  Buffer table(DType::f32, {positions, d}, {.padding = padding});
  table.fill([&](int64_t i) {
    const int64_t p = i / d, j = i % d % (d / 2);
    const double angle = static_cast<double>(p) * std::pow(10000.0, -2.0 * static_cast<double>(j) / static_cast<double>(d));
    return i % d < d / 2 ? std::cos(angle) : std::sin(angle);
  });
  return table;
}

TEST_CASE("rope: rotates the first heads, copies the others, either way", "[rope]") {
  struct Shape {
    int64_t b, t, h, d, rotated, first;
  };
  for (DType dtype : kFloating) {
    for (const Shape s : {Shape{1, 1, 1, 2, 1, 0}, Shape{2, 5, 3, 16, 2, 0}, Shape{1, 7, 6, 64, 4, 11}, Shape{2, 2, 2, 6, 0, 1},
                          Shape{1, 2, 1, 2600, 1, 3}, Shape{2, 13, 5, 128, 3, 5}}) {
      for (bool inverse : {false, true}) {
        const bool aligned = s.d == 128;
        Buffer x(dtype, {s.b, s.t, s.h, s.d}, {.padding = aligned ? 8 : 2}), out(dtype, {s.b, s.t, s.h, s.d}, {.padding = aligned ? 0 : 1});
        x.normal(1);
        const Buffer table = make_table(s.first + s.t, s.d, aligned ? 0 : 3);
        RopeArgs args{x.view(), out.view(), table.view(), s.first, s.rotated, inverse};
        const oracle::Values want = oracle::rope(args);
        run(rope, args);
        CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{dtype, 3});
        CHECK(out.guards_intact());
        // in place: the same bits
        args.out = args.x;
        run(rope, args);
        CHECK(test::values(x.view()) == test::values(out.view()));
        CHECK(x.guards_intact());
      }
    }
  }
}

TEST_CASE("rope: heads of a packed qkv in place; values past `rotated` are not touched", "[rope]") {
  const int64_t b = 2, t = 4, h = 6, d = 8;
  Buffer qkv(DType::f32, {b, t, h, d});
  qkv.normal(3);
  const std::vector<double> before = test::values(qkv.view());
  const Buffer table = make_table(t, d);
  run(rope, RopeArgs{qkv.view(), qkv.view(), table.view(), 0, 4});
  const std::vector<double> turned = test::values(qkv.view());
  for (size_t i = 0; i < turned.size(); ++i) {
    if (i / 8 % 6 >= 4) REQUIRE(turned[i] == before[i]);
  }
  CHECK(turned != before);
  run(rope, RopeArgs{qkv.view(), qkv.view(), table.view(), 0, 4, true});
  CHECK_CLOSE(qkv.view(), before, std::vector<double>(before.size(), 4.0), (Bound{DType::f32, 8}));
}

TEST_CASE("rope: no positions, no launch", "[rope]") {
  const Buffer x(DType::f32, {0, 4, 2, 8}), table = make_table(4, 8);
  run(rope, RopeArgs{x.view(), x.view(), table.view(), 0, 2});
}

TEST_CASE("rope: bits do not depend on the number of threads", "[rope]") {
  Buffer x(DType::f32, {2, 100, 6, 64});
  x.normal(1);
  const Buffer table = make_table(100, 64);
  CHECK(test::same_on_any_thread_count([&] {
    Buffer out(DType::f32, {2, 100, 6, 64});
    run(rope, RopeArgs{x.view(), out.view(), table.view(), 0, 5});
    return out;
  }));
}

TEST_CASE("rope: arguments that contradict the contract are refused by name", "[rope]") {
  Buffer x(DType::f32, {1, 4, 2, 8}), odd(DType::f32, {1, 4, 2, 7});
  const Buffer table = make_table(5, 8), other(DType::f32, {5, 7});
  CHECK(test::contains(test::error_of(rope, RopeArgs{x.view(), x.view(), table.view(), 2, 2}), "ends before position 2 + 4"));
  CHECK(test::contains(test::error_of(rope, RopeArgs{odd.view(), odd.view(), other.view(), 0, 2}), "D is odd"));
  CHECK(test::contains(test::error_of(rope, RopeArgs{x.view(), x.view(), table.view(), 0, 3}), "rotated 3"));
  CHECK(test::contains(test::error_of(rope, RopeArgs{x.view(), x.view(), other.view(), 0, 2}), "differ in D"));
}

}  // namespace
}  // namespace heddle::kernels
