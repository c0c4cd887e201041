// Elementwise kernels against float64: dtypes, strides, aliasing, sinks, extreme values, thread counts.
#include "kernels/api/pointwise.h"

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/pointwise.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::kFloating;
using test::run;

TEST_CASE("pointwise: no elements, no launch", "[pointwise]") {
  for (const auto& shape : std::vector<std::vector<int64_t>>{{0}, {3, 0}, {0, 6}}) {
    const Buffer x(DType::f32, shape), y(DType::f32, shape);
    run(axpby, AxpbyArgs{x.view(), y.view(), {y.view()}});
    run(axpby, AxpbyArgs{x.view(), {}, {y.view(), true}});
    View transposed = x.view();
    transposed.stride = {1, 7};
    run(axpby, AxpbyArgs{transposed, {}, {y.view()}});
    run(multiply, MultiplyArgs{x.view(), x.view(), {y.view()}});
    run(map, MapArgs{Map::silu, x.view(), y.view()});
    run(map_backward, MapBackwardArgs{Map::gelu, x.view(), x.view(), {y.view()}});
    run(fill, FillArgs{y.view(), 1});
    std::vector<int64_t> wide = shape;
    wide.back() *= 2;
    const Buffer pair(DType::f32, wide), d_pair(DType::f32, wide);
    run(swiglu, SwigluArgs{pair.view(), y.view()});
    run(swiglu_backward, SwigluBackwardArgs{pair.view(), y.view(), d_pair.view()});
    for (const Buffer* buffer : {&y, &d_pair}) CHECK(buffer->guards_intact());
  }
}

TEST_CASE("multiply: same shapes and a row of factors", "[pointwise]") {
  for (DType dtype : kFloating) {
    for (bool row : {false, true}) {
      for (bool accumulate : {false, true}) {
        for (bool wide : {false, true}) {
          for (const auto& shape : std::vector<std::vector<int64_t>>{{1, 1}, {3, 17}, {2, 3, 2, 5}, {4, 1100}, {3, 4, 96}}) {
            Buffer a(dtype, shape, {.padding = shape.back() % 8 ? 1 : 8}), b(dtype, row ? std::vector<int64_t>{shape.back()} : shape);
            Buffer out(wide ? accumulator_of(dtype) : dtype, shape, {.padding = shape.back() % 8 ? 2 : 0});
            a.normal(1);
            b.normal(2);
            if (accumulate) out.normal(3);
            MultiplyArgs args{a.view(), b.view(), {out.view(), accumulate}};
            const oracle::Values want = oracle::multiply(args);
            run(multiply, args);
            CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{out.view().dtype, 3});
            CHECK(out.guards_intact());
          }
        }
      }
    }
  }
}

TEST_CASE("divide: quotients and their gradients, same shapes and a row of divisors", "[pointwise]") {
  uint32_t seed = 1;
  for (DType dtype : kFloating) {
    for (bool row : {false, true}) {
      for (bool with_c : {false, true}) {
        for (const auto& shape : std::vector<std::vector<int64_t>>{{1, 1}, {3, 17}, {2, 3, 2, 5}, {4, 1100}, {3, 4, 96}}) {
          ++seed;
          const bool accumulate = seed % 2, wide = seed % 3 == 0, aligned = shape.back() % 8 == 0;
          Buffer a(dtype, shape, {.padding = aligned ? 8 : 1}), b(dtype, row ? std::vector<int64_t>{shape.back()} : shape), c(dtype, shape);
          Buffer out(wide ? accumulator_of(dtype) : dtype, shape, {.padding = aligned ? 0 : 2});
          a.normal(seed);
          b.normal(seed + 1, 4, 0.5);
          c.normal(seed + 2);
          if (accumulate) out.normal(seed + 3);
          const DivideArgs args{a.view(), b.view(), {out.view(), accumulate}, with_c ? c.view() : View{}, -0.75};
          const oracle::Values want = oracle::divide(args);
          run(divide, args);
          CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{out.view().dtype, 5});
          CHECK(out.guards_intact());
        }
      }
    }
  }
  std::vector<float> one(3, 1.0f), zero{0.0f, -0.0f, std::numeric_limits<float>::infinity()}, y(3);
  run(divide, DivideArgs{make_view(one.data(), {3}), make_view(zero.data(), {3}), {make_view(y.data(), {3})}});
  CHECK(y == std::vector<float>{std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(), 0.0f});
}

// Small, large, denormal and beyond where the activations saturate.
Buffer activations(DType dtype, std::vector<int64_t> shape, uint32_t seed, int64_t padding = 1) {
  Buffer x(dtype, std::move(shape), {.padding = padding});
  x.normal(seed, 0, 4);
  const double special[] = {0, -0.0, 1e-30, -1e-30, 1e-41, 87, -87, 104, -104, 1e4, -1e4, 3e18, -3e18};
  int64_t i = 0;
  for (double v : special) {
    if (i < x.view().numel() - 1) x.put(i++, v);
  }
  return x;
}

constexpr Map kMaps[] = {Map::gelu, Map::relu2, Map::silu, Map::sigmoid, Map::tanh, Map::exp, Map::log, Map::softcap};

// Of these, what the map has a finite value and derivative for.
Buffer inputs_of(Map kind, DType dtype, const std::vector<int64_t>& shape, int64_t padding) {
  Buffer x = activations(dtype, shape, 3, padding);
  for (int64_t i = 0; i < x.view().numel(); ++i) {
    const double v = test::element(x.view(), i);
    if (kind == Map::exp || kind == Map::sigmoid) x.put(i, std::clamp(v, -86.0, 86.0));
    if (kind == Map::log) x.put(i, std::max(std::abs(v), 1e-30));
  }
  return x;
}

TEST_CASE("map: values and derivatives", "[pointwise]") {
  for (Map kind : kMaps) {
    for (DType dtype : kFloating) {
      for (const auto& shape : std::vector<std::vector<int64_t>>{{1}, {5, 19}, {2, 1100}, {4, 1512}}) {
        const bool aligned = shape.back() == 1512;
        const Buffer x = inputs_of(kind, dtype, shape, aligned ? 8 : 1);
        Buffer out(dtype, shape, {.padding = aligned ? 0 : 2});
        MapArgs args{kind, x.view(), out.view(), 5};
        const oracle::Values want = oracle::map(args);
        run(map, args);
        INFO("map " << static_cast<int>(kind) << " " << shape_text(x.view()));
        CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{dtype, 8});
        CHECK(out.guards_intact());
        for (bool accumulate : {false, true}) {
          Buffer dy(dtype, shape), dx(accumulate ? accumulator_of(dtype) : dtype, shape, {.padding = aligned ? 16 : 3});
          dy.normal(5);
          if (accumulate) dx.normal(6);
          MapBackwardArgs backward{kind, x.view(), dy.view(), {dx.view(), accumulate}, 5};
          const oracle::Values want_dx = oracle::map_backward(backward);
          run(map_backward, backward);
          CHECK_CLOSE(dx.view(), want_dx.want, want_dx.magnitude, Bound{dx.view().dtype, 10});
          CHECK(dx.guards_intact());
        }
      }
    }
  }
}

TEST_CASE("map: NaN stays NaN", "[pointwise]") {
  for (Map kind : kMaps) {
    std::vector<float> x(9, std::numeric_limits<float>::quiet_NaN()), y(9, 0.0f);
    run(map, MapArgs{kind, make_view(x.data(), {9}), make_view(y.data(), {9}), 2});
    for (float v : y) CHECK(std::isnan(v));
    std::vector<float> ones(9, 1.0f), dx(9, 0.0f);
    run(map_backward, MapBackwardArgs{kind, make_view(x.data(), {9}), make_view(ones.data(), {9}), {make_view(dx.data(), {9})}, 2});
    for (float v : dx) CHECK(std::isnan(v));
  }
}

TEST_CASE("swiglu: forward, backward, backward on top of x", "[pointwise]") {
  for (DType dtype : kFloating) {
    for (const auto& [n, f] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 7}, {5, 1100}, {4, 768}}) {
      const int64_t aligned = f == 768 ? 8 : 0;  // paddings in units of 16 bytes, or such that no row is aligned
      Buffer x = activations(dtype, {n, 2 * f}, 1, aligned ? aligned : 1);
      Buffer out(dtype, {n, f}, {.padding = aligned ? 0 : 1}), d_out(dtype, {n, f}, {.padding = aligned ? 8 : 2}),
          dx(dtype, {n, 2 * f}, {.padding = aligned ? 16 : 3});
      d_out.normal(2);
      const oracle::Values want = oracle::swiglu({x.view(), out.view()});
      run(swiglu, SwigluArgs{x.view(), out.view()});
      CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{dtype, 9});
      CHECK(out.guards_intact());
      const oracle::Values want_dx = oracle::swiglu_backward({x.view(), d_out.view(), dx.view()});
      run(swiglu_backward, SwigluBackwardArgs{x.view(), d_out.view(), dx.view()});
      CHECK_CLOSE(dx.view(), want_dx.want, want_dx.magnitude, Bound{dtype, 12});
      CHECK(dx.guards_intact());
      run(swiglu_backward, SwigluBackwardArgs{x.view(), d_out.view(), x.view()});
      CHECK(test::values(x.view()) == test::values(dx.view()));
    }
  }
}

TEST_CASE("fill: every dtype, nothing beyond the view", "[pointwise]") {
  for (DType dtype : {DType::f32, DType::bf16, DType::f64, DType::i32, DType::u16, DType::u8}) {
    Buffer out(dtype, {3, 41}, {.padding = 5});
    run(fill, FillArgs{out.view(), 3});
    CHECK(test::values(out.view()) == std::vector<double>(123, 3.0));
    CHECK(out.guards_intact());
    Buffer column(dtype, {5, 1}, {.padding = 1});
    run(fill, FillArgs{column.view(), 3});
    CHECK(test::values(column.view()) == std::vector<double>(5, 3.0));
    CHECK(column.guards_intact());
    Buffer aligned(dtype, {5, 2000}, {.padding = 16});
    run(fill, FillArgs{aligned.view(), dtype == DType::u8 ? 250.0 : dtype == DType::u16 ? 65000.0 : dtype == DType::i32 ? -7 : -0.5});
    const std::vector<double> got = test::values(aligned.view());
    CHECK(got == std::vector<double>(10000, got[0]));
    CHECK(got[0] == (dtype == DType::u8 ? 250.0 : dtype == DType::u16 ? 65000.0 : dtype == DType::i32 ? -7 : -0.5));
    CHECK(aligned.guards_intact());
  }
}

// Bytes are stored 16 at once, but only at multiples of 16: not at those of another number, nor a row in units of another number.
TEST_CASE("fill: bytes at a multiple of 17, rows of 33", "[pointwise]") {
  Buffer rows(DType::u8, {2, 33}, {.padding = 15});
  run(fill, FillArgs{rows.view(), 3});
  CHECK(test::values(rows.view()) == std::vector<double>(66, 3.0));
  CHECK(rows.guards_intact());
  const Buffer room(DType::u8, {400});
  View at_17 = room.view();
  const auto address = [&] { return reinterpret_cast<uintptr_t>(at_17.data); };
  while (address() % 17 != 0 || address() % 16 != 1) ++at_17.data;
  at_17.shape[0] = 64;
  run(fill, FillArgs{at_17, 3});
  CHECK(test::values(at_17) == std::vector<double>(64, 3.0));
  const std::vector<double> all = test::values(room.view());
  CHECK(std::count(all.begin(), all.end(), 255.0) == 400 - 64);
}

TEST_CASE("pointwise: bits do not depend on the number of threads", "[pointwise]") {
  const std::vector<int64_t> shape{77, 1203};
  Buffer a(DType::f32, shape, {.padding = 5}), b(DType::f32, shape);
  a.normal(1);
  b.normal(2);
  CHECK(test::same_on_any_thread_count([&] {
    Buffer out(DType::bf16, shape);
    run(axpby, AxpbyArgs{a.view(), b.view(), {out.view()}, 0.1, 0.7});
    return out;
  }));
  CHECK(test::same_on_any_thread_count([&] {
    Buffer dx(DType::f32, shape);
    run(map_backward, MapBackwardArgs{Map::gelu, a.view(), b.view(), {dx.view()}});
    return dx;
  }));
  CHECK(test::same_on_any_thread_count([&] {
    Buffer dx(DType::f32, {77, 2406});
    Buffer x(DType::f32, {77, 2406});
    x.normal(4);
    run(swiglu_backward, SwigluBackwardArgs{x.view(), a.view(), dx.view()});
    return dx;
  }));
}

TEST_CASE("pointwise: arguments that contradict the contract are refused by name", "[pointwise]") {
  Buffer a(DType::f32, {4, 6}), b(DType::f32, {4, 5}), c(DType::bf16, {4, 6}), i(DType::i32, {4, 6});
  CHECK(test::contains(test::error_of(axpby, AxpbyArgs{a.view(), b.view(), {a.view()}}), "shapes differ: a f32 (4, 6), b f32 (4, 5)"));
  CHECK(test::contains(test::error_of(axpby, AxpbyArgs{i.view(), {}, {a.view()}}), "must be f32, bf16 or f64"));
  CHECK(test::contains(test::error_of(axpby, AxpbyArgs{a.view(), {}, {}}), "out is absent"));
  CHECK(test::contains(test::error_of(multiply, MultiplyArgs{a.view(), c.view(), {a.view()}}), "dtypes differ"));
  CHECK(test::contains(test::error_of(map, MapArgs{Map::gelu, a.view(), c.view()}), "dtypes differ"));
  CHECK(test::contains(test::error_of(map, MapArgs{Map::softcap, a.view(), a.view()}), "cap is 0"));
  CHECK(test::contains(test::error_of(map_backward, MapBackwardArgs{Map::softcap, a.view(), a.view(), {a.view()}, -1}), "cap is -1"));
  CHECK(test::contains(test::error_of(divide, DivideArgs{a.view(), a.view(), {a.view()}, b.view()}), "shapes differ"));
  CHECK(test::contains(test::error_of(swiglu, SwigluArgs{a.view(), b.view()}), "twice the columns"));
  View transposed = a.view();
  std::swap(transposed.shape[0], transposed.shape[1]);
  std::swap(transposed.stride[0], transposed.stride[1]);
  CHECK(test::contains(test::error_of(map, MapArgs{Map::gelu, transposed, transposed}), "the last stride is not 1"));
}

}  // namespace
}  // namespace heddle::kernels
