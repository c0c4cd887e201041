// LayerNorm and RMSNorm against float64, and their gradients against finite differences.
#include "kernels/api/norm.h"

#include <array>
#include <optional>

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/norm.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::kFloating;
using test::run;

constexpr NormKind kKinds[] = {NormKind::layer, NormKind::rms};
// Of a GPU: a quarter of a warp, a warp and a block a row, in registers and not; teams without a row; rows that end within 16 bytes.
const std::vector<std::pair<int64_t, int64_t>> kShapes = {{1, 1}, {3, 5}, {2, 64}, {67, 384}, {3, 2051}, {1, 1024}, {37, 128}, {5, 4100}, {2, 8203}};

// Rows that begin at multiples of 16 bytes, or at odd places.
test::BufferOptions placed(bool aligned, int64_t columns, int64_t padding = 0, int64_t offset = 0) {
  if (!aligned) return {.padding = padding, .offset = offset};
  return {.padding = (8 - columns % 8) % 8 + 8 * padding};
}

View absent() {
  return {};
}

// Two outliers a row, and a constant row.
void add_outliers(Buffer& x) {
  const int64_t rows = x.view().size(0), columns = x.view().size(1);
  if (columns < 5) return;
  for (int64_t r = 0; r < rows; ++r) {
    x.put(r * columns + 1, 300);
    x.put(r * columns + 3, -200);
  }
  for (int64_t c = 0; c < columns; ++c) x.put(c, 0.75);
}

TEST_CASE("norm forward: layer and rms, gain, bias, residual, dtypes, shapes", "[norm]") {
  uint32_t seed = 1;
  for (NormKind kind : kKinds) {
    for (DType dtype : kFloating) {
      for (const auto& [n, c] : kShapes) {
        for (int options = 0; options < 16; ++options, ++seed) {
          const bool with_gain = options & 1, with_bias = options & 2, with_residual = options & 4, aligned = options & 8;
          Buffer x(dtype, {n, c}, placed(aligned, c, 1, 1)), residual(dtype, {n, c}, placed(aligned, c, 2)), gain(dtype, {c}), bias(dtype, {c});
          x.normal(seed, 0.5, 2);
          residual.normal(seed + 1);
          gain.normal(seed + 2, 1, 0.3);
          bias.normal(seed + 3);
          if (seed % 3 == 0) add_outliers(x);
          const DType statistic = accumulator_of(dtype);
          Buffer sum(dtype, {n, c}, placed(aligned, c, 3)), y(dtype, {n, c}, placed(aligned, c, 4)), mean(statistic, {n}), rstd(statistic, {n});
          NormForwardArgs args{kind, x.view()};
          if (with_gain) args.gain = gain.view();
          if (with_bias) args.bias = bias.view();
          if (with_residual) args.residual = residual.view();
          if (with_residual || seed % 2) args.sum = sum.view();
          args.y = y.view();
          if (kind == NormKind::layer) args.mean = mean.view();
          args.rstd = rstd.view();
          const oracle::NormResult want = oracle::norm_forward(args);
          run(norm_forward, args);
          INFO("kind " << static_cast<int>(kind) << " " << shape_text(x.view()) << " options " << options);
          const double terms = static_cast<double>(c) + 10;
          CHECK_CLOSE(y.view(), want.y.want, want.y.magnitude, Bound{dtype, terms});
          CHECK_CLOSE(rstd.view(), want.rstd.want, want.rstd.magnitude, Bound{statistic, terms});
          if (kind == NormKind::layer) CHECK_CLOSE(mean.view(), want.mean.want, want.mean.magnitude, Bound{statistic, terms});
          if (args.sum) CHECK(test::values(sum.view()) == want.sum);
          CHECK((y.guards_intact() && sum.guards_intact() && mean.guards_intact() && rstd.guards_intact()));
        }
      }
    }
  }
}

TEST_CASE("norm backward: sinks, residual gradient, dtypes, shapes", "[norm]") {
  uint32_t seed = 100;
  for (NormKind kind : kKinds) {
    for (DType dtype : kFloating) {
      for (const auto& [n, c] : kShapes) {
        for (int options = 0; options < 32; options += 3, ++seed) {
          const bool with_gain = options & 1, with_residual = options & 2, accumulate = options & 4, wide = options & 8, aligned = options & 16;
          const DType out_type = wide ? accumulator_of(dtype) : dtype, statistic = accumulator_of(dtype);
          Buffer x(dtype, {n, c}, placed(aligned, c, 1)), dy(dtype, {n, c}, placed(aligned, c, 2, 1)), residual(dtype, {n, c}, placed(aligned, c)),
              gain(dtype, {c});
          Buffer dx(out_type, {n, c}, placed(aligned, c, 3)), d_gain(out_type, {c}), d_bias(out_type, {c}), mean(statistic, {n}),
              rstd(statistic, {n});
          x.normal(seed, 0.5, 2);
          dy.normal(seed + 1);
          residual.normal(seed + 2);
          gain.normal(seed + 3, 1, 0.3);
          mean.normal(seed + 4, 0.5, 0.1);
          rstd.fill([](int64_t i) { return 0.4 + 0.1 * static_cast<double>(i % 3); });
          if (accumulate) {
            dx.normal(seed + 5);
            d_gain.normal(seed + 6);
            d_bias.normal(seed + 7);
          }
          NormBackwardArgs args{kind, x.view()};
          if (with_gain) args.gain = gain.view();
          if (kind == NormKind::layer) args.mean = mean.view();
          args.rstd = rstd.view();
          args.dy = dy.view();
          if (with_residual) args.d_residual = residual.view();
          args.dx = {dx.view(), accumulate};
          if (seed % 4 != 0) args.d_gain = {d_gain.view(), accumulate};
          if (seed % 3 != 0) args.d_bias = {d_bias.view(), accumulate};
          const oracle::NormGradient want = oracle::norm_backward(args);
          run(norm_backward, args);
          INFO("kind " << static_cast<int>(kind) << " " << shape_text(x.view()) << " options " << options);
          CHECK_CLOSE(dx.view(), want.dx.want, want.dx.magnitude, Bound{out_type, static_cast<double>(c) + 12});
          const Bound columns{out_type, static_cast<double>(n) + 8};
          if (args.d_gain) CHECK_CLOSE(d_gain.view(), want.d_gain.want, want.d_gain.magnitude, columns);
          if (args.d_bias) CHECK_CLOSE(d_bias.view(), want.d_bias.want, want.d_bias.magnitude, columns);
          CHECK((dx.guards_intact() && d_gain.guards_intact() && d_bias.guards_intact()));
          if (args.d_gain && !accumulate) {  // the gradient of x is not wanted
            const Buffer before = d_gain;
            d_gain.poison();
            args.dx = {};
            run(norm_backward, args);
            CHECK(d_gain == before);
          }
        }
      }
    }
  }
}

TEST_CASE("norm backward: the gradient of forward, by central differences in f64", "[norm][cpu]") {
  const int64_t n = 3, c = 7;
  for (NormKind kind : kKinds) {
    Buffer x(DType::f64, {n, c}), gain(DType::f64, {c}), bias(DType::f64, {c}), dy(DType::f64, {n, c}), residual_gradient(DType::f64, {n, c});
    Buffer y(DType::f64, {n, c}), mean(DType::f64, {n}), rstd(DType::f64, {n});
    x.normal(1);
    gain.normal(2);
    bias.normal(3);
    dy.normal(4);
    const View layer_mean = kind == NormKind::layer ? mean.view() : absent();
    // loss = sum of dy y
    const auto loss = [&] {
      run(norm_forward, NormForwardArgs{kind, x.view(), {}, gain.view(), bias.view(), {}, y.view(), layer_mean, rstd.view()});
      double total = 0;
      for (int64_t i = 0; i < n * c; ++i) total += test::element(y.view(), i) * test::element(dy.view(), i);
      return total;
    };
    const auto slope = [&](Buffer& input, int64_t i) {
      const double at = test::element(input.view(), i), h = 1e-5;
      input.put(i, at + h);
      const double above = loss();
      input.put(i, at - h);
      const double below = loss();
      input.put(i, at);
      return (above - below) / (2 * h);
    };
    loss();
    Buffer dx(DType::f64, {n, c}), d_gain(DType::f64, {c}), d_bias(DType::f64, {c});
    run(norm_backward,
        NormBackwardArgs{kind, x.view(), gain.view(), layer_mean, rstd.view(), dy.view(), {}, {dx.view()}, {d_gain.view()}, {d_bias.view()}, {}});
    for (int64_t i = 0; i < n * c; ++i) CHECK(std::abs(slope(x, i) - test::element(dx.view(), i)) < 1e-8);
    for (int64_t i = 0; i < c; ++i) CHECK(std::abs(slope(gain, i) - test::element(d_gain.view(), i)) < 1e-8);
    for (int64_t i = 0; i < c; ++i) CHECK(std::abs(slope(bias, i) - test::element(d_bias.view(), i)) < 1e-8);
  }
}

// q of a packed qkv: (B, T, 3, H, D) seen as (B, T, H, D) with the strides of the whole.
View packed_heads(const Buffer& qkv, int64_t heads, int64_t d) {
  View v = qkv.view();  // (B, T, 3 H D)
  const int64_t row = v.stride[1];
  v.rank = 4;
  v.shape = {v.shape[0], v.shape[1], heads, d};
  v.stride = {v.stride[0], row, d, 1};
  return v;
}

TEST_CASE("norm: per head on rank 4 views of a packed buffer, in place", "[norm]") {
  for (DType dtype : kFloating) {
    for (const int64_t d : {16, 20, 128}) {
      const int64_t b = 2, t = 3, h = 2;
      Buffer qkv(dtype, {b, t, 3 * h * d}, {.padding = 8}), gain(dtype, {d}), y(dtype, {b, t, h, d}), rstd(accumulator_of(dtype), {b * t * h});
      qkv.normal(1);
      gain.normal(2);
      const View q = packed_heads(qkv, h, d);
      NormForwardArgs args{NormKind::rms, q, {}, gain.view(), {}, {}, y.view(), {}, rstd.view()};
      const oracle::NormResult want = oracle::norm_forward(args);
      run(norm_forward, args);
      CHECK_CLOSE(y.view(), want.y.want, want.y.magnitude, Bound{dtype, static_cast<double>(d) + 10});

      // dx on top of dy, both strided like q; the neighbours k and v stay as they are
      Buffer d_qkv(dtype, {b, t, 3 * h * d}, {.padding = 8}), d_gain(dtype, {d});
      d_qkv.normal(3);
      const std::vector<double> before = test::values(d_qkv.view());
      const View dq = packed_heads(d_qkv, h, d);
      NormBackwardArgs backward{NormKind::rms, q, gain.view(), {}, rstd.view(), dq, {}, {dq}, {d_gain.view()}, {}, {}};
      const oracle::NormGradient gradient = oracle::norm_backward(backward);
      run(norm_backward, backward);
      CHECK_CLOSE(dq, gradient.dx.want, gradient.dx.magnitude, Bound{dtype, static_cast<double>(d) + 12});
      CHECK_CLOSE(d_gain.view(), gradient.d_gain.want, gradient.d_gain.magnitude, Bound{dtype, static_cast<double>(b * t * h) + 8});
      const std::vector<double> after = test::values(d_qkv.view());
      for (size_t i = 0; i < after.size(); ++i) {
        if (static_cast<int64_t>(i) % (3 * h * d) >= h * d) REQUIRE(after[i] == before[i]);
      }
      CHECK(d_qkv.guards_intact());
    }
  }
}

// (B, T, H, D) at the corner of a larger buffer: no two of the axes are dense together.
TEST_CASE("norm: boxes within larger boxes; nothing around them is written", "[norm]") {
  const int64_t b = 3, t = 3, h = 4, rows = b * t * h;
  for (DType dtype : kFloating) {
    for (const int64_t d : {8, 20, 600}) {
      for (const NormKind kind : kKinds) {
        std::array<Buffer, 4> around;  // of x, y, dy, dx
        for (uint32_t i = 0; i < 4; ++i) (around[i] = Buffer(dtype, {b, t + 1, h + 1, d + 8})).normal(i + 1);
        const std::array<Buffer, 4> before = around;
        const auto box = [&](size_t i) {
          View v = around[i].view();
          v.shape = {b, t, h, d};
          return v;
        };
        Buffer gain(dtype, {d}), d_gain(dtype, {d}), mean(accumulator_of(dtype), {rows}), rstd = mean;
        gain.normal(5);
        const View layer_mean = kind == NormKind::layer ? mean.view() : absent();
        const NormForwardArgs args{kind, box(0), {}, gain.view(), {}, {}, box(1), layer_mean, rstd.view()};
        const oracle::NormResult want = oracle::norm_forward(args);
        run(norm_forward, args);
        CHECK_CLOSE(args.y, want.y.want, want.y.magnitude, Bound{dtype, static_cast<double>(d) + 10});
        const NormBackwardArgs back{kind, args.x, gain.view(), layer_mean, rstd.view(), box(2), {}, {box(3)}, {d_gain.view()}, {}, {}};
        const oracle::NormGradient gradient = oracle::norm_backward(back);
        run(norm_backward, back);
        CHECK_CLOSE(back.dx.to, gradient.dx.want, gradient.dx.magnitude, Bound{dtype, static_cast<double>(d) + 12});
        CHECK_CLOSE(d_gain.view(), gradient.d_gain.want, gradient.d_gain.magnitude, Bound{dtype, static_cast<double>(rows) + 8});
        int64_t wrong = 0;
        for (size_t i = 0; i < 4; ++i) {
          const std::vector<double> was = test::values(before[i].view()), is = test::values(around[i].view());
          for (int64_t at = 0; at < static_cast<int64_t>(was.size()); ++at) {
            const bool inside = at % (d + 8) < d && at / (d + 8) % (h + 1) < h && at / (d + 8) / (h + 1) % (t + 1) < t;
            wrong += (!inside || i % 2 == 0) && is[static_cast<size_t>(at)] != was[static_cast<size_t>(at)];
          }
        }
        CHECK(wrong == 0);
      }
    }
  }
}

TEST_CASE("norm backward: dx may be dy or d_residual", "[norm]") {
  for (DType dtype : kFloating) {
    for (NormKind kind : kKinds) {
      for (const int64_t c : {64, 1100, 9001}) {
        const int64_t n = 9;
        Buffer x(dtype, {n, c}), dy(dtype, {n, c}), r(dtype, {n, c}), dx(dtype, {n, c}), mean(accumulator_of(dtype), {n}), rstd = mean;
        Buffer d_gain(dtype, {c}), d_bias(dtype, {c});
        x.normal(1);
        dy.normal(2);
        r.normal(3);
        mean.normal(4);
        rstd.fill([](int64_t) { return 0.9; });
        NormBackwardArgs args{kind,
                              x.view(),
                              {},
                              kind == NormKind::layer ? mean.view() : absent(),
                              rstd.view(),
                              dy.view(),
                              r.view(),
                              {dx.view()},
                              {d_gain.view()},
                              {d_bias.view()},
                              {}};
        run(norm_backward, args);
        const std::vector want{dx, d_gain, d_bias};
        Buffer on_dy = dy, on_r = r;
        const auto on = [&](Buffer& place) {
          args.dx = {place.view()};
          d_gain.poison(), d_bias.poison();
          run(norm_backward, args);
          CHECK(std::vector{place, d_gain, d_bias} == want);
        };
        args.dy = on_dy.view();
        on(on_dy);
        args.dy = dy.view();
        args.d_residual = on_r.view();
        on(on_r);
      }
    }
  }
}

// More rows than the blocks of a GPU take at once, and than there are partial sums of rows; long ones, several at a time for each warp.
TEST_CASE("norm: many rows", "[norm]") {
  for (DType dtype : kFloating) {
    for (const auto& [n, c] : std::vector<std::pair<int64_t, int64_t>>{{34000, 8}, {1100, 1032}, {75, 8203}}) {
      const DType statistic = accumulator_of(dtype);
      Buffer x(dtype, {n, c}), dy(dtype, {n, c}), y(dtype, {n, c}), mean(statistic, {n}), rstd = mean, dx = y, d_gain(statistic, {c}),
                                                                                          d_bias = d_gain;
      x.normal(1, 0.5, 2);
      dy.normal(2);
      NormForwardArgs args{NormKind::layer, x.view()};
      args.y = y.view(), args.mean = mean.view(), args.rstd = rstd.view();
      const oracle::NormResult want = oracle::norm_forward(args);
      run(norm_forward, args);
      CHECK_CLOSE(y.view(), want.y.want, want.y.magnitude, Bound{dtype, static_cast<double>(c) + 10});
      NormBackwardArgs back{NormKind::layer, x.view(),        {}, mean.view(), rstd.view(), dy.view(), {}, {dx.view()},
                            {d_gain.view()}, {d_bias.view()}, {}};
      const oracle::NormGradient gradient = oracle::norm_backward(back);
      run(norm_backward, back);
      CHECK_CLOSE(dx.view(), gradient.dx.want, gradient.dx.magnitude, Bound{dtype, static_cast<double>(c) + 12});
      const Bound columns{statistic, static_cast<double>(n) + 8};
      CHECK_CLOSE(d_gain.view(), gradient.d_gain.want, gradient.d_gain.magnitude, columns);
      CHECK_CLOSE(d_bias.view(), gradient.d_bias.want, gradient.d_bias.magnitude, columns);
    }
  }
}

TEST_CASE("norm: bits do not depend on the number of threads", "[norm]") {
  for (const auto& [n, c] : std::vector<std::pair<int64_t, int64_t>>{{301, 384}, {100, 24}, {40, 1500}}) {
    Buffer x(DType::f32, {n, c}), dy(DType::f32, {n, c}), gain(DType::f32, {c}), mean(DType::f32, {n}), rstd(DType::f32, {n});
    x.normal(1);
    dy.normal(2);
    gain.normal(3);
    CHECK(test::same_on_any_thread_count([&, n = n, c = c] {
      Buffer y(DType::f32, {n, c});
      run(norm_forward, NormForwardArgs{NormKind::layer, x.view(), {}, gain.view(), {}, {}, y.view(), mean.view(), rstd.view()});
      return std::vector{y, mean, rstd};
    }));
    CHECK(test::same_on_any_thread_count([&, n = n, c = c] {
      Buffer dx(DType::f32, {n, c}), d_gain(DType::f32, {c}), d_bias(DType::f32, {c});
      run(norm_backward,
          NormBackwardArgs{
              NormKind::layer, x.view(), gain.view(), mean.view(), rstd.view(), dy.view(), {}, {dx.view()}, {d_gain.view()}, {d_bias.view()}, {}});
      return std::vector{dx, d_gain, d_bias};
    }));
  }
}

TEST_CASE("norm: bits do not depend on where rows begin", "[norm]") {
  for (DType dtype : kFloating) {
    for (const int64_t c : {24, 130, 1500, 9001}) {
      const int64_t n = 7;
      std::vector<std::vector<double>> outcomes;
      for (const bool aligned : {true, false}) {
        const test::BufferOptions options = placed(aligned, c, 1, 1);
        Buffer x(dtype, {n, c}, options), dy(dtype, {n, c}, options), y(dtype, {n, c}, options), dx = y;
        Buffer mean(accumulator_of(dtype), {n}), rstd = mean, d_gain(dtype, {c}), d_bias(dtype, {c});
        x.normal(1);
        dy.normal(2);
        NormForwardArgs args{NormKind::layer, x.view()};
        args.y = y.view(), args.mean = mean.view(), args.rstd = rstd.view();
        run(norm_forward, args);
        run(norm_backward,
            NormBackwardArgs{
                NormKind::layer, x.view(), {}, mean.view(), rstd.view(), dy.view(), {}, {dx.view()}, {d_gain.view()}, {d_bias.view()}, {}});
        outcomes.emplace_back();
        for (const Buffer* b : {&y, &mean, &rstd, &dx, &d_gain, &d_bias}) {
          const std::vector<double> values = test::values(b->view());
          outcomes.back().insert(outcomes.back().end(), values.begin(), values.end());
        }
      }
      CHECK(outcomes[0] == outcomes[1]);
    }
  }
}

TEST_CASE("norm: arguments that contradict the contract are refused by name", "[norm]") {
  Buffer x(DType::f32, {4, 6}), y = x, gain(DType::f32, {5}), rstd(DType::f32, {4}), three(DType::f32, {3});
  NormForwardArgs args{NormKind::rms, x.view(), {}, {}, {}, {}, y.view(), {}, rstd.view()};
  CHECK(test::error_of(norm_forward, args) == "");
  args.residual = y.view();
  CHECK(test::contains(test::error_of(norm_forward, args), "residual is given but not sum"));
  args.residual = {};
  args.gain = gain.view();
  CHECK(test::contains(test::error_of(norm_forward, args), "gain f32 (5) must have shape (6)"));
  args.gain = {};
  args.rstd = three.view();
  CHECK(test::contains(test::error_of(norm_forward, args), "one element a row"));
  args.kind = NormKind::layer;
  CHECK(test::contains(test::error_of(norm_forward, args), "mean is absent"));
}

TEST_CASE("norm backward: arguments that contradict the contract are refused by name", "[norm]") {
  Buffer x(DType::f32, {4, 6}), dy = x, dx = x, gain(DType::f32, {6}), rstd(DType::f32, {4}), mean = rstd, d_gain = gain, d_bias = gain;
  Buffer wide(DType::f32, {4, 7}), half(DType::bf16, {4, 6}), five(DType::f32, {5}), three(DType::f32, {3}), half_gain(DType::bf16, {6});
  Buffer half_rstd(DType::bf16, {4}), flat(DType::f32, {24}), whole(DType::i32, {4, 6}), scalar(DType::f32, {});
  const NormBackwardArgs good{NormKind::layer, x.view(),        gain.view(),     mean.view(), rstd.view(), dy.view(), {},
                              {dx.view()},     {d_gain.view()}, {d_bias.view()}, {}};
  CHECK(test::error_of(norm_backward, good) == "");
  const auto refused = [&](auto change, const std::string& part) {
    NormBackwardArgs args = good;
    change(args);
    const std::string error = test::error_of(norm_backward, args);
    INFO(part << ": " << error);
    CHECK(test::contains(error, part));
  };
  refused([&](auto& a) { a.x = whole.view(); }, "x i32 (4, 6)");
  refused([&](auto& a) { a.x = scalar.view(); }, "x is a scalar");
  refused([&](auto& a) { a.x = {}; }, "x is absent");
  refused([&](auto& a) { a.dy = {}; }, "dy is absent");
  refused([&](auto& a) { a.dy = wide.view(); }, "dy f32 (4, 7)");
  refused([&](auto& a) { a.dy = half.view(); }, "dy bf16 (4, 6)");
  refused([&](auto& a) { a.d_residual = wide.view(); }, "d_residual f32 (4, 7)");
  refused([&](auto& a) { a.d_residual = half.view(); }, "d_residual bf16 (4, 6)");
  refused([&](auto& a) { a.dx = {flat.view()}; }, "dx f32 (24)");
  refused([&](auto& a) { a.dx = {whole.view()}; }, "dx i32 (4, 6)");
  refused([&](auto& a) { a.gain = five.view(); }, "gain f32 (5) must have shape (6)");
  refused([&](auto& a) { a.gain = half_gain.view(); }, "gain bf16 (6)");
  refused([&](auto& a) { a.d_gain = {five.view()}; }, "d_gain f32 (5) must have shape (6)");
  refused([&](auto& a) { a.d_gain = {rstd.view()}; }, "d_gain f32 (4) must have shape (6)");
  refused([&](auto& a) { a.d_gain = {half_gain.view()}; }, "d_gain bf16 (6)");
  refused([&](auto& a) { a.d_bias = {five.view()}; }, "d_bias f32 (5) must have shape (6)");
  refused([&](auto& a) { a.d_bias = {half_gain.view()}; }, "d_bias bf16 (6)");
  refused([&](auto& a) { a.mean = {}; }, "mean is absent");
  refused([&](auto& a) { a.mean = three.view(); }, "mean f32 (3) must have one element a row");
  refused([&](auto& a) { a.mean = half_rstd.view(); }, "mean bf16 (4) must be f32");
  refused([&](auto& a) { a.rstd = {}; }, "rstd is absent");
  refused([&](auto& a) { a.rstd = three.view(); }, "rstd f32 (3) must have one element a row");
  refused([&](auto& a) { a.rstd = half_rstd.view(); }, "rstd bf16 (4) must be f32");
  // What may be left out is not asked for.
  NormBackwardArgs least{NormKind::rms, x.view(), {}, {}, rstd.view(), dy.view(), {}, {dx.view()}, {}, {}, {}};
  CHECK(test::error_of(norm_backward, least) == "");
  // Scratch that is too small for the sums over rows.
  const Candidate<NormBackwardArgs>& candidate = norm_backward.choose(test::kDevice, good);
  std::vector<std::byte> scratch(candidate.scratch(good) - 1);
  NormBackwardArgs small = good;
  small.scratch = scratch;
  CHECK_THROWS_AS(candidate.run(small, Stream{}), Error);
}

}  // namespace
}  // namespace heddle::kernels
