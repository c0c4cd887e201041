// Sums and softmax against float64.
#include "kernels/api/reduce.h"

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/cross_entropy.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::kFloating;
using test::run;

TEST_CASE("sum: of x and of x^2, dtypes, lengths, scales, stored and added", "[reduce]") {
  StepState step;
  step.loss_scale = 0.25f;
  int variant = 0;
  for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    for (int64_t n : {int64_t{0}, int64_t{1}, int64_t{15}, int64_t{1000}, int64_t{5000}, int64_t{3 * 65536 + 77}, int64_t{100002}}) {
      Buffer x(dtype, {n}, {.offset = n % 2});
      x.normal(static_cast<uint32_t>(n), 0.25, 3);
      for (bool squares : {false, true}) {
        for (DType out_type : {accumulator_of(dtype), DType::f64}) {
          const bool accumulate = ++variant % 2;
          Buffer out(out_type, variant % 3 ? std::vector<int64_t>{1} : std::vector<int64_t>{});
          if (accumulate) out.put(0, 100);
          SumArgs args{x.view(), {out.view(), accumulate}, 0.5, squares, variant % 4 ? nullptr : &step};
          const double factor = 0.5 * (args.step ? 0.25 : 1);
          double want = accumulate ? 100 : 0, size = want;
          for (int64_t i = 0; i < n; ++i) {
            const double v = test::element(x.view(), i), term = factor * (squares ? v * v : v);
            want += term;
            size += std::abs(term);
          }
          run(sum, args);
          const double narrow = test::kDevice == DeviceType::cpu ? 0 : test::gamma(6, DType::f32);  // a square, a tree over 32 elements
          const double allowed =
              (test::gamma(static_cast<double>(n) + 4, DType::f64) + narrow) * size + test::unit_roundoff(out_type) * std::abs(want);
          CHECK_CLOSE(out.view(), std::vector{want}, std::vector{allowed});
          CHECK(out.guards_intact());
        }
      }
    }
  }
}

TEST_CASE("sum: a length beyond one wave of chunks", "[reduce]") {
  const int64_t n = 515 * 65536 + 3;
  std::vector<bf16> x(static_cast<size_t>(n));
  double want = 0;
  for (int64_t i = 0; i < n; i += 32768 + 11) {
    x[static_cast<size_t>(i)] = bf16(static_cast<float>(1 + i % 100));
    want += static_cast<float>(x[static_cast<size_t>(i)]);
  }
  x.back() = bf16(0.5f);
  double total = 0;
  run(sum, SumArgs{make_view(x.data(), {n}), {make_view(&total, {1})}});
  CHECK(total == want + 0.5);
}

TEST_CASE("sum: NaN and Inf reach the total", "[reduce]") {
  std::vector<float> x(100000, 1.0f);
  double total = 0;
  x[70001] = std::numeric_limits<float>::infinity();
  run(sum, SumArgs{make_view(x.data(), {100000}), {make_view(&total, {1})}, 1, true});
  CHECK(std::isinf(total));
  x[3] = std::numeric_limits<float>::quiet_NaN();
  run(sum, SumArgs{make_view(x.data(), {100000}), {make_view(&total, {1})}, 1, true});
  CHECK(std::isnan(total));
}

TEST_CASE("sum: squares beyond the range of f32 are finite in f64", "[reduce]") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    Buffer x(dtype, {700}), out(DType::f64, {1});
    x.fill([](int64_t i) { return i == 333 ? 1e30 : 1; });
    SumArgs args{x.view(), {out.view()}};
    args.squares = true;
    run(sum, args);
    const double big = test::values(x.view())[333];
    CHECK(std::abs(test::values(out.view())[0] / (big * big) - 1) < 1e-12);
  }
}

TEST_CASE("column sum: shapes, strides, sinks", "[reduce]") {
  for (DType dtype : kFloating) {
    for (const auto& [n, c] :
         std::vector<std::pair<int64_t, int64_t>>{{0, 3}, {1, 1}, {30, 5}, {33, 7}, {100, 1500}, {5000, 2}, {17000, 3}, {70, 264}}) {
      for (int options = 0; options < 4; ++options) {
        const bool accumulate = options & 1, aligned = options & 2;
        Buffer x(dtype, {n, c}, aligned ? test::BufferOptions{.padding = (8 - c % 8) % 8} : test::BufferOptions{.padding = 1, .offset = 1}),
            out(accumulate ? dtype : accumulator_of(dtype), {c});
        x.normal(1, 0.1, 1);
        if (accumulate) out.normal(2);
        ColumnSumArgs args{x.view(), {out.view(), accumulate}, {}};
        oracle::Values want(args.out);
        for (int64_t i = 0; i < n * c; ++i) want.add(i % c, test::element(x.view(), i));
        run(column_sum, args);
        CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{out.view().dtype, static_cast<double>(n) + 2});
        CHECK(out.guards_intact());
      }
    }
  }
}

TEST_CASE("softmax: forward, backward, in place", "[reduce]") {
  for (DType dtype : kFloating) {
    for (const auto& [n, c] : std::vector<std::pair<int64_t, int64_t>>{{0, 5}, {1, 1}, {3, 9}, {5, 64}, {4, 2100}, {2, 9001}}) {
      for (bool aligned : {false, true}) {
        for (float scale : {1.0f, -0.25f}) {
          const auto placed = [&, c = c](int64_t padding) -> test::BufferOptions {
            return {.padding = aligned ? (8 - c % 8) % 8 + 8 * padding : padding};
          };
          Buffer x(dtype, {n, c}, placed(1)), y(dtype, {n, c}, placed(2)), dy(dtype, {n, c}, placed(3));
          x.normal(1, 0, 8);
          dy.normal(2);
          SoftmaxArgs args{x.view(), y.view(), scale};
          oracle::Values want(n * c);
          for (int64_t i = 0; i < n; ++i) {
            const std::vector<double> row = oracle::row_of(x.view(), i);
            const oracle::SoftmaxRow soft = oracle::softmax(row, scale);
            for (int64_t j = 0; j < c; ++j) {
              const double p = soft.p[static_cast<size_t>(j)], d = soft.max - scale * row[static_cast<size_t>(j)];
              want.add(i * c + j, p, p * (1 + d));
            }
          }
          run(softmax, args);
          CHECK_CLOSE(y.view(), want.want, want.magnitude, Bound{dtype, static_cast<double>(c) + 12});
          CHECK(y.guards_intact());

          for (bool accumulate : {false, true}) {
            Buffer dx(accumulate ? accumulator_of(dtype) : dtype, {n, c}, placed(4));
            if (accumulate) dx.normal(3);
            SoftmaxBackwardArgs backward{y.view(), dy.view(), {dx.view(), accumulate}, scale};
            oracle::Values want_dx(backward.dx);
            for (int64_t i = 0; i < n; ++i) {
              double dot = 0, size = 0;
              for (int64_t j = 0; j < c; ++j) dot += test::element(y.view(), i * c + j) * test::element(dy.view(), i * c + j);
              for (int64_t j = 0; j < c; ++j) size += std::abs(test::element(y.view(), i * c + j) * test::element(dy.view(), i * c + j));
              for (int64_t j = 0; j < c; ++j) {
                const double p = test::element(y.view(), i * c + j), d = test::element(dy.view(), i * c + j);
                want_dx.add(i * c + j, scale * (d - dot) * p, std::abs(scale) * (std::abs(d) + size) * p);
              }
            }
            run(softmax_backward, backward);
            CHECK_CLOSE(dx.view(), want_dx.want, want_dx.magnitude, Bound{dx.view().dtype, static_cast<double>(c) + 5});
            CHECK(dx.guards_intact());
          }
          run(softmax, SoftmaxArgs{x.view(), x.view(), scale});
          CHECK(test::values(x.view()) == test::values(y.view()));
        }
      }
    }
  }
}

// What lies behind the last row are numbers: a NaN that is read there would leave the guards as they are.
TEST_CASE("softmax: the gradient of rows before others", "[reduce]") {
  for (DType dtype : kFloating) {
    Buffer y(dtype, {4, 9}), dy(dtype, {4, 9}), dx(dtype, {3, 9}), all(dtype, {4, 9});
    y.normal(1), dy.normal(2);
    run(softmax_backward, SoftmaxBackwardArgs{y.view(), dy.view(), {all.view()}});
    View first_y = y.view(), first_dy = dy.view(), first = all.view();
    first_y.shape[0] = first_dy.shape[0] = first.shape[0] = 3;
    run(softmax_backward, SoftmaxBackwardArgs{first_y, first_dy, {dx.view()}});
    CHECK(test::values(dx.view()) == test::values(first));
    CHECK(dx.guards_intact());
  }
}

TEST_CASE("column sum: of no columns, nothing", "[reduce]") {
  const Buffer x(DType::f32, {3, 0}), out(DType::f32, {0});
  run(column_sum, ColumnSumArgs{x.view(), {out.view()}, {}});
  CHECK(out.guards_intact());
}

TEST_CASE("reduce: bits do not depend on the number of threads", "[reduce]") {
  Buffer x(DType::f32, {777, 300});
  x.normal(1);
  CHECK(test::same_on_any_thread_count([&] {
    Buffer total(DType::f64, {1}), columns(DType::f32, {300}), soft(DType::f32, {777, 300}), dx = soft;
    run(sum, SumArgs{x.view(), {total.view()}, 1, true});
    run(column_sum, ColumnSumArgs{x.view(), {columns.view()}, {}});
    run(softmax, SoftmaxArgs{x.view(), soft.view()});
    run(softmax_backward, SoftmaxBackwardArgs{soft.view(), x.view(), {dx.view()}});
    return std::vector{total, columns, soft, dx};
  }));
}

TEST_CASE("reduce: arguments that contradict the contract are refused by name", "[reduce]") {
  Buffer x(DType::f32, {4, 6}, {.padding = 1}), dense(DType::f32, {4, 6}), two(DType::f32, {2}), half(DType::bf16, {1}), five(DType::f32, {5});
  CHECK(test::contains(test::error_of(sum, SumArgs{x.view(), {two.view()}}), "x f32 (4, 6) must be dense"));
  CHECK(test::contains(test::error_of(sum, SumArgs{dense.view(), {two.view()}}), "must be one number"));
  CHECK(test::contains(test::error_of(sum, SumArgs{dense.view(), {half.view()}}), "must be f32 or f64"));
  CHECK(test::contains(test::error_of(column_sum, ColumnSumArgs{dense.view(), {five.view()}, {}}), "shape (6)"));
  Buffer six(DType::f32, {6});
  const ColumnSumArgs args{dense.view(), {six.view()}, {}};  // no scratch
  CHECK_THROWS_AS(column_sum.choose(test::kDevice, args).run(args, Stream{}), Error);
}

}  // namespace
}  // namespace heddle::kernels
