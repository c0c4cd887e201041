// Elementwise kernels against float64: dtypes, strides, aliasing, sinks, extreme values, thread counts.
#include "kernels/api/pointwise.h"

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/pointwise.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::BufferOptions;
using test::kFloating;
using test::run;

const std::vector<std::vector<int64_t>> kShapes = {{}, {1}, {7}, {3, 5}, {4, 1}, {2, 3, 2, 9}, {1, 1030}, {3, 2500}};

TEST_CASE("axpby: every combination of dtypes and shapes, with and without b, stored and added", "[pointwise]") {
  uint32_t seed = 1;
  for (DType a_type : kFloating) {
    for (DType b_type : kFloating) {
      for (DType out_type : kFloating) {
        for (const auto& shape : kShapes) {
          for (bool accumulate : {false, true}) {
            const bool with_b = seed % 4 != 0;
            const BufferOptions strided{static_cast<int64_t>(seed % 3), static_cast<int64_t>(seed % 2)};
            Buffer a(a_type, shape, strided), b(b_type, shape, {.padding = 1}), out(out_type, shape, strided);
            a.normal(seed);
            b.normal(seed + 1, 1, 30);
            if (accumulate) out.normal(seed + 2);
            AxpbyArgs args{a.view(), with_b ? b.view() : View{}, {out.view(), accumulate}, 1.25, -0.3};
            const oracle::Values want = oracle::axpby(args);
            run(axpby, args);
            INFO(name_of(a_type) << " " << name_of(b_type) << " -> " << shape_text(out.view()) << " += " << accumulate << " b " << with_b);
            CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{out_type, 5});
            CHECK(out.guards_intact());
            ++seed;
          }
        }
      }
    }
  }
}

TEST_CASE("axpby: a cast to bf16 rounds to nearest even, bit for bit", "[pointwise]") {
  std::vector<float> from;
  for (uint32_t high : {0x0000u, 0x0001u, 0x3f80u, 0x3f81u, 0x7f7fu, 0x7f80u, 0x8000u, 0xbf80u, 0xff80u, 0xff7fu, 0x7fc0u, 0x0080u}) {
    for (uint32_t low : {0x0000u, 0x0001u, 0x7fffu, 0x8000u, 0x8001u, 0xffffu}) from.push_back(std::bit_cast<float>(high << 16 | low));
  }
  const int64_t n = static_cast<int64_t>(from.size());
  std::vector<bf16> to(from.size());
  run(axpby, AxpbyArgs{make_view(from.data(), {n}), {}, {make_view(to.data(), {n})}});
  for (size_t i = 0; i < from.size(); ++i) {
    INFO("f32 bits " << std::hex << std::bit_cast<uint32_t>(from[i]));
    CHECK(to[i].bits == bf16(from[i]).bits);
    CHECK(std::isnan(from[i]) == std::isnan(static_cast<float>(to[i])));
  }
}

TEST_CASE("axpby: a transposed operand", "[pointwise]") {
  for (DType dtype : kFloating) {
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 5}, {70, 130}, {1, 9}, {9, 1}, {300, 65}}) {
      for (bool with_b : {false, true}) {
        Buffer stored(dtype, {columns, rows}, {.padding = 2}), b(dtype, {rows, columns}), out(DType::f32, {rows, columns}, {.padding = 1});
        if (dtype == DType::f64) out = Buffer(DType::f64, {rows, columns}, {.padding = 1});
        stored.normal(1);
        b.normal(2);
        View a = stored.view();
        std::swap(a.shape[0], a.shape[1]);
        std::swap(a.stride[0], a.stride[1]);
        AxpbyArgs args{a, with_b ? b.view() : View{}, {out.view()}, 0.5, 2};
        const oracle::Values want = oracle::axpby(args);
        run(axpby, args);
        CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{out.view().dtype, 3});
        CHECK(out.guards_intact());
      }
    }
  }
}

TEST_CASE("axpby: out may be a or b", "[pointwise]") {
  for (DType dtype : kFloating) {
    Buffer a(dtype, {5, 333}, {.padding = 3}), b(dtype, {5, 333});
    a.normal(1);
    b.normal(2);
    const oracle::Values onto_a = oracle::axpby({a.view(), b.view(), {a.view()}, 2, 3});
    Buffer a2 = a;
    run(axpby, AxpbyArgs{a2.view(), b.view(), {a2.view()}, 2, 3});
    CHECK_CLOSE(a2.view(), onto_a.want, onto_a.magnitude, Bound{dtype, 3});
    run(axpby, AxpbyArgs{a.view(), b.view(), {b.view()}, 2, 3});
    CHECK_CLOSE(b.view(), onto_a.want, onto_a.magnitude, Bound{dtype, 3});
  }
}

TEST_CASE("multiply: same shapes and a row of factors", "[pointwise]") {
  for (DType dtype : kFloating) {
    for (bool row : {false, true}) {
      for (bool accumulate : {false, true}) {
        for (bool wide : {false, true}) {
          for (const auto& shape : std::vector<std::vector<int64_t>>{{1, 1}, {3, 17}, {2, 3, 2, 5}, {4, 1100}}) {
            Buffer a(dtype, shape, {.padding = 1}), b(dtype, row ? std::vector<int64_t>{shape.back()} : shape);
            Buffer out(wide ? accumulator_of(dtype) : dtype, shape, {.padding = 2});
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

// Small, large, denormal and beyond where the activations saturate.
Buffer activations(DType dtype, std::vector<int64_t> shape, uint32_t seed) {
  Buffer x(dtype, std::move(shape), {.padding = 1});
  x.normal(seed, 0, 4);
  const double special[] = {0, -0.0, 1e-30, -1e-30, 1e-41, 87, -87, 104, -104, 1e4, -1e4, 3e18, -3e18};
  int64_t i = 0;
  for (double v : special) {
    if (i < x.view().numel() - 1) x.put(i++, v);
  }
  return x;
}

TEST_CASE("map: values and derivatives", "[pointwise]") {
  for (Map kind : {Map::gelu, Map::relu2, Map::silu}) {
    for (DType dtype : kFloating) {
      for (const auto& shape : std::vector<std::vector<int64_t>>{{1}, {5, 19}, {2, 1100}}) {
        const Buffer x = activations(dtype, shape, 3);
        Buffer out(dtype, shape, {.padding = 2});
        MapArgs args{kind, x.view(), out.view()};
        const oracle::Values want = oracle::map(args);
        run(map, args);
        INFO("map " << static_cast<int>(kind) << " " << shape_text(x.view()));
        CHECK_CLOSE(out.view(), want.want, want.magnitude, Bound{dtype, 8});
        CHECK(out.guards_intact());
        for (bool accumulate : {false, true}) {
          Buffer dy(dtype, shape), dx(accumulate ? accumulator_of(dtype) : dtype, shape, {.padding = 3});
          dy.normal(5);
          if (accumulate) dx.normal(6);
          MapBackwardArgs backward{kind, x.view(), dy.view(), {dx.view(), accumulate}};
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
  for (Map kind : {Map::gelu, Map::relu2, Map::silu}) {
    std::vector<float> x(9, std::numeric_limits<float>::quiet_NaN()), y(9, 0.0f);
    run(map, MapArgs{kind, make_view(x.data(), {9}), make_view(y.data(), {9})});
    for (float v : y) CHECK(std::isnan(v));
  }
}

TEST_CASE("swiglu: forward, backward, backward on top of x", "[pointwise]") {
  for (DType dtype : kFloating) {
    for (const auto& [n, f] : std::vector<std::pair<int64_t, int64_t>>{{1, 1}, {3, 7}, {5, 1100}}) {
      Buffer x = activations(dtype, {n, 2 * f}, 1);
      Buffer out(dtype, {n, f}, {.padding = 1}), d_out(dtype, {n, f}, {.padding = 2}), dx(dtype, {n, 2 * f}, {.padding = 3});
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
  }
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
  CHECK(test::contains(test::error_of(swiglu, SwigluArgs{a.view(), b.view()}), "twice the columns"));
  View transposed = a.view();
  std::swap(transposed.shape[0], transposed.shape[1]);
  std::swap(transposed.stride[0], transposed.stride[1]);
  CHECK(test::contains(test::error_of(map, MapArgs{Map::gelu, transposed, transposed}), "the last stride is not 1"));
}

}  // namespace
}  // namespace heddle::kernels
