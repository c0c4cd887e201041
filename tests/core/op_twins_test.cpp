// Every fused op against the same function made of primitive ops, both within bounds that a plain loop derives, in f64, f32 and bf16.
// The loops store() wherever the fused op or its twin rounds to the tensor's dtype, so one bound covers both.
#include "tests/support/op_case.h"

namespace heddle {
namespace {

using namespace test;

const auto kDtypes = {DType::f64, DType::f32, DType::bf16};

double gelu_value(double z) {
  return 0.5 * z * (1 + std::tanh(0.7978845608028654 * (z + 0.044715 * z * z * z)));
}
double gelu_slope(double z) {
  const double t = std::tanh(0.7978845608028654 * (z + 0.044715 * z * z * z));
  return 0.5 * (1 + t) + 0.5 * z * (1 - t * t) * 0.7978845608028654 * (1 + 3 * 0.044715 * z * z);
}
double silu_value(double z) {
  return z / (1 + std::exp(-z));
}
double silu_slope(double z) {
  const double s = 1 / (1 + std::exp(-z));
  return s * (1 + z * (1 - s));
}
// Largest slopes: |gelu'| < 1.13, |gelu''| < 1.2; |silu'| < 1.1, |silu''| <= 0.5.
Ranged gelu_of(Ranged z) {
  return apply(gelu_value, z, 1.13);
}
Ranged gelu_slope_of(Ranged z) {
  return apply(gelu_slope, z, 1.2);
}

Tensor bias_rows(const Tensor& bias, int64_t rows) {  // (M) to (N, M) by a product: no primitive op broadcasts
  return matmul(full({rows, 1}, 1, bias.dtype()), reshape(bias, {1, bias.numel()}));
}

DEVICE_TEST_CASE("linear is a product and a bias") {
  constexpr int64_t n = 5, k = 37, m = 6;
  const OpCase c{"linear",
                 {{n, k}, {m, k}, {m}},
                 [](auto in) { return linear(in[0], in[1], in[2]); },
                 [](auto in) { return add(matmul(in[0], in[1], false, true), bias_rows(in[2], n)); },
                 [](const std::vector<Matrix>& in, const Matrix& dy) {
                   const Matrix z = product_t(in[0], in[1]);
                   const Matrix y = tabulate(n, m, [&](int64_t r, int64_t j) { return store(z(r, j)) + in[2](0, j); });
                   return std::vector{y, product(dy, in[1]), product(dy.transposed(), in[0]), column_sum(dy)};
                 },
                 {n, m}};
  for (DType dtype : kDtypes) CHECK(compare(c, dtype) == "");
}

DEVICE_TEST_CASE("gelu_mlp is linear, gelu, linear") {
  constexpr int64_t n = 5, k = 12, f = 33;
  const OpCase c{"gelu_mlp",
                 {{n, k}, {f, k}, {f}, {k, f}, {k}},
                 [](auto in) { return gelu_mlp(in[0], in[1], in[2], in[3], in[4]); },
                 [](auto in) { return linear(gelu(linear(in[0], in[1], in[2])), in[3], in[4]); },
                 [](const std::vector<Matrix>& in, const Matrix& dy) {
                   const Matrix z = product_t(in[0], in[1]);
                   const Matrix pre = tabulate(n, f, [&](int64_t r, int64_t j) { return z(r, j) + in[2](0, j); });
                   const Matrix act = tabulate(n, f, [&](int64_t r, int64_t j) { return gelu_of(pre(r, j)); });
                   const Matrix out = product_t(act, in[3]);
                   const Matrix y = tabulate(n, k, [&](int64_t r, int64_t j) { return out(r, j) + in[4](0, j); });
                   const Matrix dact = product(dy, in[3]);
                   const Matrix dpre = tabulate(n, f, [&](int64_t r, int64_t j) { return dact(r, j) * gelu_slope_of(pre(r, j)); });
                   return std::vector{
                       y, product(dpre, in[1]), product(dpre.transposed(), in[0]), column_sum(dpre), product(dy.transposed(), act), column_sum(dy)};
                 },
                 {n, k}};
  for (DType dtype : kDtypes) CHECK(compare(c, dtype) == "");
}

DEVICE_TEST_CASE("relu2_mlp is linear, relu2, linear") {
  constexpr int64_t n = 5, k = 12, f = 33;
  const OpCase c{"relu2_mlp",
                 {{n, k}, {f, k}, {k, f}},
                 [](auto in) { return relu2_mlp(in[0], in[1], {}, in[2], {}); },
                 [](auto in) { return linear(relu2(linear(in[0], in[1])), in[2]); },
                 [](const std::vector<Matrix>& in, const Matrix& dy) {
                   const auto positive = [](Ranged z) { return Ranged(std::max(z.v, 0.0), z.e); };  // max is 1-Lipschitz
                   const Matrix pre = product_t(in[0], in[1]);
                   const Matrix act = tabulate(n, f, [&](int64_t r, int64_t j) { return positive(pre(r, j)) * positive(pre(r, j)); });
                   const Matrix y = product_t(act, in[2]);
                   const Matrix dact = product(dy, in[2]);
                   const Matrix dpre = tabulate(n, f, [&](int64_t r, int64_t j) { return dact(r, j) * Ranged(2) * positive(pre(r, j)); });
                   return std::vector{y, product(dpre, in[1]), product(dpre.transposed(), in[0]), product(dy.transposed(), act)};
                 },
                 {n, k}};
  for (DType dtype : kDtypes) CHECK(compare(c, dtype) == "");
}

DEVICE_TEST_CASE("swiglu_mlp is linear, silu times up, linear") {
  constexpr int64_t n = 5, k = 12, f = 17;
  const OpCase c{"swiglu_mlp",
                 {{n, k}, {2 * f, k}, {k, f}},
                 [](auto in) { return swiglu_mlp(in[0], in[1], in[2]); },
                 [](auto in) {
                   const Tensor both = linear(in[0], in[1]);
                   const Tensor act = mul(silu(contiguous(slice(both, 1, 0, f))), contiguous(slice(both, 1, f, 2 * f)));
                   return linear(act, in[2]);
                 },
                 [](const std::vector<Matrix>& in, const Matrix& dy) {
                   const Matrix both = product_t(in[0], in[1]);
                   const Matrix gate = tabulate(n, f, [&](int64_t r, int64_t j) { return apply(silu_value, both(r, j), 1.1); });
                   const Matrix act = tabulate(n, f, [&](int64_t r, int64_t j) { return gate(r, j) * both(r, f + j); });
                   const Matrix y = product_t(act, in[2]);
                   const Matrix dact = product(dy, in[2]);
                   const Matrix dboth = tabulate(n, 2 * f, [&](int64_t r, int64_t j) {
                     if (j >= f) return dact(r, j - f) * gate(r, j - f);
                     return store(dact(r, j) * both(r, f + j)) * apply(silu_slope, both(r, j), 0.5);
                   });
                   return std::vector{y, product(dboth, in[1]), product(dboth.transposed(), in[0]), product(dy.transposed(), act)};
                 },
                 {n, k}};
  for (DType dtype : kDtypes) CHECK(compare(c, dtype) == "");
}

// y, dx, d_gain, d_bias of a row norm of s, without anything joined from elsewhere.
struct NormLoop {
  Matrix y, dx, d_gain, d_bias;
};
NormLoop norm_loop(bool layer, const Matrix& s, const Matrix* gain, const Matrix* bias, const Matrix& dy, double eps) {
  const int64_t n = s.rows, c = s.columns;
  const Ranged inverse = 1.0 / static_cast<double>(c);
  Matrix xhat(n, c), g(n, c), y(n, c), dx(n, c);
  for (int64_t r = 0; r < n; ++r) {
    const Ranged mean = layer ? total(c, [&](int64_t j) { return s(r, j); }) * inverse : Ranged(0);
    const auto centred = [&](int64_t j) { return layer ? s(r, j) - mean : s(r, j); };
    const Ranged rstd = rsqrt(dot(c, centred, centred) * inverse + Ranged(eps));
    for (int64_t j = 0; j < c; ++j) {
      xhat(r, j) = centred(j) * rstd;
      const Ranged scaled = gain ? xhat(r, j) * (*gain)(0, j) : xhat(r, j);
      y(r, j) = store(bias ? scaled + (*bias)(0, j) : scaled);
      g(r, j) = gain ? dy(r, j) * (*gain)(0, j) : dy(r, j);
    }
    const Ranged mean_g = layer ? total(c, [&](int64_t j) { return g(r, j); }) * inverse : Ranged(0);
    const Ranged mean_gx = dot(
                               c, [&](int64_t j) { return g(r, j); }, [&](int64_t j) { return xhat(r, j); }) *
                           inverse;
    for (int64_t j = 0; j < c; ++j) dx(r, j) = rstd * (g(r, j) - mean_g - xhat(r, j) * mean_gx);
  }
  Matrix products(n, c);
  for (int64_t r = 0; r < n; ++r) {
    for (int64_t j = 0; j < c; ++j) products(r, j) = dy(r, j) * xhat(r, j);
  }
  return {y, dx, column_sum(products), column_sum(dy)};
}

DEVICE_TEST_CASE("a norm with a residual is an addition and a norm, and its two gradients join") {
  constexpr int64_t n = 6, k = 19;
  const bool layer = GENERATE(true, false);
  const auto out = [=](const Tensor& x, const Tensor& r, std::span<const Tensor> in) {
    const NormOutput o = layer ? layer_norm(x, r, in[2], in[3]) : rms_norm(x, r, in[2]);
    return concat({o.y, o.sum}, 0);  // (2 N, C)
  };
  OpCase c{"norm",
           {{n, k}, {n, k}, {k}},
           [=](auto in) { return out(in[0], in[1], in); },
           [=](auto in) { return out(add(in[0], in[1]), {}, in); },
           [=](const std::vector<Matrix>& in, const Matrix& dy) {
             Matrix top(n, k), bottom(n, k);  // exact: no store
             for (int64_t r = 0; r < n; ++r) {
               for (int64_t j = 0; j < k; ++j) top(r, j) = dy(r, j), bottom(r, j) = dy(n + r, j);
             }
             const Matrix s = tabulate(n, k, [&](int64_t r, int64_t j) { return in[0](r, j) + in[1](r, j); });
             const NormLoop loop = norm_loop(layer, s, &in[2], layer ? &in[3] : nullptr, top, 1e-5f);
             Matrix y(2 * n, k);
             for (int64_t r = 0; r < n; ++r) {
               for (int64_t j = 0; j < k; ++j) y(r, j) = loop.y(r, j), y(n + r, j) = s(r, j);
             }
             const Matrix dx = tabulate(n, k, [&](int64_t r, int64_t j) { return store(loop.dx(r, j)) + bottom(r, j); });
             std::vector<Matrix> all{y, dx, dx, loop.d_gain};
             if (layer) all.push_back(loop.d_bias);
             return all;
           },
           {2 * n, k}};
  if (layer) c.shapes.push_back({k});
  for (DType dtype : kDtypes) CHECK(compare(c, dtype) == "");
}

DEVICE_TEST_CASE("qk_norm is an RMSNorm of each q and k head") {
  constexpr int64_t b = 2, t = 3, h = 4, hkv = 2, d = 6, rows = b * t;
  const OpCase c{"qk_norm",
                 {{b, t, (h + 2 * hkv) * d}, {d}, {d}},
                 [](auto in) { return qk_norm(in[0], h, hkv, in[1], in[2], 1e-6f); },
                 [](auto in) {
                   const auto part = [&](int64_t first, int64_t count, const Tensor& gain) {
                     const Tensor heads = reshape(contiguous(slice(in[0], 2, first * d, (first + count) * d)), {b, t, count, d});
                     return reshape(rms_norm(heads, {}, gain, 1e-6f).y, {b, t, count * d});
                   };
                   return concat({part(0, h, in[1]), part(h, hkv, in[2]), contiguous(slice(in[0], 2, (h + hkv) * d, (h + 2 * hkv) * d))}, 2);
                 },
                 [](const std::vector<Matrix>& in, const Matrix& dy) {
                   Matrix y = in[0], dx = dy;  // v passes through
                   std::vector<Matrix> d_gain;
                   const auto part = [&](int64_t first, int64_t count, const Matrix& gain) {
                     Matrix x(rows * count, d), g(rows * count, d);
                     const auto each = [&](auto f) {
                       for (int64_t r = 0; r < rows; ++r) {
                         for (int64_t i = 0; i < count * d; ++i) f(r * count + i / d, i % d, r, first * d + i);
                       }
                     };
                     each([&](int64_t hr, int64_t j, int64_t r, int64_t col) { x(hr, j) = in[0](r, col), g(hr, j) = dy(r, col); });
                     const NormLoop loop = norm_loop(false, x, &gain, nullptr, g, 1e-6f);
                     each([&](int64_t hr, int64_t j, int64_t r, int64_t col) { y(r, col) = loop.y(hr, j), dx(r, col) = store(loop.dx(hr, j)); });
                     d_gain.push_back(loop.d_gain);
                   };
                   part(0, h, in[1]);
                   part(h, hkv, in[2]);
                   return std::vector{y, dx, d_gain[0], d_gain[1]};
                 },
                 {b, t, (h + 2 * hkv) * d}};
  for (DType dtype : kDtypes) CHECK(compare(c, dtype) == "");
}

DEVICE_TEST_CASE("cross_entropy is a softmax, a logarithm and a choice") {
  constexpr int64_t n = 6, v = 11;
  static constexpr int32_t target[n] = {4, 0, -1, 10, 4, 7};
  const OpCase c{"cross_entropy",
                 {{n, v}},
                 [](auto in) {
                   return cast(cross_entropy(in[0], ints({target, target + n}, {n})), in[0].dtype());
                 },
                 [](auto in) {
                   std::vector<double> chosen(n * v);
                   for (int64_t r = 0; r < n; ++r) {
                     if (target[r] >= 0) chosen[static_cast<size_t>(r * v + target[r])] = -1;
                   }
                   const Tensor terms = mul(log(softmax(in[0])), tensor(chosen, {n, v}, in[0].dtype()));
                   return reshape(matmul(terms, full({v, 1}, 1, in[0].dtype())), {n});
                 },
                 [](const std::vector<Matrix>& in, const Matrix& dy) {
                   const auto slope = [](Ranged x) { return 1 / (x.v - x.e); };
                   Matrix y(1, n), dz(n, v);
                   for (int64_t r = 0; r < n; ++r) {
                     if (target[r] < 0) continue;
                     double largest = -1e300;
                     for (int64_t j = 0; j < v; ++j) largest = std::max(largest, in[0](r, j).v);
                     const auto term = [&](int64_t j) { return exp(in[0](r, j) - Ranged(largest)); };
                     const Ranged sum = total(v, term), inverse = apply([](double x) { return 1 / x; }, sum, slope(sum) * slope(sum));
                     const Ranged p = store(term(target[r]) * inverse),
                                  g = store(dy(0, r) * apply([](double x) { return 1 / x; }, p, slope(p) * slope(p)));
                     y(0, r) = store(Ranged(-1) * store(apply([](double x) { return std::log(x); }, p, slope(p))));
                     for (int64_t j = 0; j < v; ++j) dz(r, j) = store(store(term(j) * inverse) * (g * p - (j == target[r] ? g : Ranged(0))));
                   }
                   return std::vector{y, dz};
                 },
                 {n}};
  for (DType dtype : kDtypes) CHECK(compare(c, dtype) == "");
}

TEST_CASE("the rope table holds cos and sin of position times theta^(-2i/D)") {
  kernels::register_cpu_kernels();
  for (const double theta : {10000.0, 500000.0, 100.0}) {
    for (const int64_t d : {2, 6, 64}) {
      const int64_t positions = 200, half = d / 2;
      const std::vector<double> table = rope_table(positions, d, theta).to_vector();
      REQUIRE(table.size() == static_cast<size_t>(positions * d));
      for (int64_t i = 0; i < half; ++i) {
        // By logarithm, where the table takes a power. Either frequency is off by a few 2^-53 of itself, an angle below 200 by that much of 200.
        const double frequency = std::exp(-std::log(theta) * (2.0 * static_cast<double>(i)) / static_cast<double>(d));
        for (const int64_t p : {0, 1, 2, 3, 17, 101, 199}) {
          CAPTURE(theta, d, i, p);
          const double angle = static_cast<double>(p) * frequency, allowed = 0x1p-24 + 200 * 64 * 0x1p-53;  // half a unit of f32 below 1 is 2^-25
          CHECK(std::abs(table[static_cast<size_t>(p * d + i)] - std::cos(angle)) <= allowed);
          CHECK(std::abs(table[static_cast<size_t>(p * d + half + i)] - std::sin(angle)) <= allowed);
        }
      }
    }
  }
}

DEVICE_TEST_CASE("rope is a product with cos and sin") {
  constexpr int64_t b = 2, t = 5, h = 3, d = 8, first = 2, rotated = 2;
  const Tensor table = rope_table(t + first, d, 100, device());  // (P, D) f32
  const std::vector<double> entry = table.to_vector();
  const auto angle = [&](int64_t position, int64_t column) { return entry[static_cast<size_t>((first + position) * d + column)]; };
  const OpCase c{"rope",
                 {{b, t, h, d}},
                 [=](auto in) { return rope_(scale(in[0], 1), table, rotated, first); },
                 [=](auto in) {
                   std::vector<double> cosine, sine;  // (B, T, rotated, D / 2)
                   for (int64_t i = 0; i < b * t * rotated * (d / 2); ++i) {
                     const int64_t position = i / (d / 2) / rotated % t;
                     cosine.push_back(angle(position, i % (d / 2)));
                     sine.push_back(angle(position, d / 2 + i % (d / 2)));
                   }
                   const Shape half{b, t, rotated, d / 2};
                   const Tensor cs = tensor(cosine, half, in[0].dtype()), sn = tensor(sine, half, in[0].dtype());
                   const Tensor turning = slice(in[0], 2, 0, rotated);
                   const Tensor x1 = contiguous(slice(turning, 3, 0, d / 2)), x2 = contiguous(slice(turning, 3, d / 2, d));
                   const Tensor y = concat({add(mul(x1, cs), mul(x2, sn), 1, -1), add(mul(x2, cs), mul(x1, sn))}, 3);
                   return concat({y, contiguous(slice(in[0], 2, rotated, h))}, 2);
                 },
                 [=](const std::vector<Matrix>& in, const Matrix& dy) {
                   const auto turn = [&](const Matrix& x, double sign) {  // rows are (b, t, head)
                     return tabulate(x.rows, d, [&](int64_t r, int64_t j) {
                       if (r % h >= rotated) return x(r, j);
                       const int64_t position = r / h % t, i = j % (d / 2);
                       // The twin's tables are rounded to the dtype.
                       const Ranged cs = store(angle(position, i)), sn = store(Ranged(sign * angle(position, d / 2 + i)));
                       const Ranged a = store(x(r, j) * cs);
                       return j < d / 2 ? a - store(x(r, i + d / 2) * sn) : a + store(x(r, i) * sn);
                     });
                   };
                   return std::vector{turn(in[0], 1), turn(dy, -1)};
                 },
                 {b, t, h, d}};
  for (DType dtype : kDtypes) CHECK(compare(c, dtype) == "");
}

DEVICE_TEST_CASE("attention is two products around a masked softmax") {
  constexpr int64_t b = 2, t = 9, h = 4, hkv = 2, d = 6, width = (h + 2 * hkv) * d, group = h / hkv;
  const int64_t window = GENERATE(0, 4);
  const std::vector<int32_t> starts{0, 0, 0, 3, 3, 3, 3, 7, 7, 0, 0, 0, 0, 0, 5, 5, 5, 5};
  const double factor = 1.0f / std::sqrt(static_cast<float>(d));
  const Tensor documents = ints(starts, {b, t});
  const auto visible = [=](int64_t row, int64_t i, int64_t j) {
    return j <= i && j >= starts[static_cast<size_t>(row * t + i)] && (window == 0 || j > i - window);
  };
  const OpCase c{
      "attention",
      {{b, t, width}},
      [=](auto in) { return attention(in[0], h, hkv, {.window = window, .document_start = documents}); },
      [=](auto in) {
        std::vector<Tensor> rows;
        for (int64_t row = 0; row < b; ++row) {
          std::vector<double> mask;
          for (int64_t i = 0; i < t * t; ++i) mask.push_back(visible(row, i / t, i % t) ? 0 : -1e30);
          const Tensor bias = tensor(mask, {t, t}, in[0].dtype());
          const auto head = [&](int64_t index) {
            return reshape(contiguous(slice(slice(in[0], 0, row, row + 1), 2, index * d, (index + 1) * d)), {t, d});
          };
          std::vector<Tensor> heads;
          for (int64_t i = 0; i < h; ++i) {
            const Tensor scores = matmul(head(i), head(h + i / group), false, true);    // (T, T)
            const Tensor p = softmax(add(scores, bias), static_cast<float>(factor));    // (T, T)
            heads.push_back(reshape(matmul(p, head(h + hkv + i / group)), {1, t, d}));  // (1, T, D)
          }
          rows.push_back(concat(heads, 2));
        }
        return concat(rows, 0);
      },
      [=](const std::vector<Matrix>& in, const Matrix& dy) {
        Matrix y(b * t, h * d), dx(b * t, width);
        const auto add_stored = [](Ranged& to, Ranged value) { to = store(to + store(value)); };
        for (int64_t row = 0; row < b; ++row) {
          for (int64_t i = 0; i < h; ++i) {
            const int64_t kc = (h + i / group) * d, vc = (h + hkv + i / group) * d;
            const auto at = [&](int64_t pos, int64_t column, int64_t e) { return in[0](row * t + pos, column + e); };
            Matrix p(t, t), ds(t, t);
            for (int64_t q = 0; q < t; ++q) {
              std::vector<Ranged> s(t), e(t);
              double largest = -1e300;
              for (int64_t j = 0; j < t; ++j) {
                if (!visible(row, q, j)) continue;
                s[j] = store(dot(
                           d, [&](int64_t k) { return at(q, i * d, k); }, [&](int64_t k) { return at(j, kc, k); })) *
                       Ranged(factor);
                largest = std::max(largest, s[j].v);
              }
              for (int64_t j = 0; j < t; ++j) e[j] = visible(row, q, j) ? exp(s[j] - Ranged(largest)) : Ranged(0);
              const Ranged sum = total(t, [&](int64_t j) { return e[j]; });
              for (int64_t j = 0; j < t; ++j) {
                const double v = e[j].v / sum.v;
                // Backward takes exp(s - LSE): another 16 u (1 + |LSE|) relative.
                const double lse = std::abs(largest) + std::abs(std::log(sum.v));
                p(q, j) = store({v, (e[j].e + v * sum.e) / (sum.v - sum.e) + v * 16 * rounding().u() * (1 + lse)});
              }
              for (int64_t k = 0; k < d; ++k) {
                y(row * t + q, i * d + k) = store(dot(
                    t, [&](int64_t j) { return p(q, j); }, [&](int64_t j) { return at(j, vc, k); }));
              }
              const auto g = [&](int64_t k) { return dy(row * t + q, i * d + k); };
              std::vector<Ranged> dp(t);
              for (int64_t j = 0; j < t; ++j) dp[j] = store(dot(d, g, [&](int64_t k) { return at(j, vc, k); }));
              // sum(p dp) here, dot(dy, y) in the fused op: the larger of the two bounds.
              Ranged delta = dot(
                  t, [&](int64_t j) { return p(q, j); }, [&](int64_t j) { return dp[j]; });
              delta.e = std::max(delta.e, dot(d, g, [&](int64_t k) { return y(row * t + q, i * d + k); }).e);
              for (int64_t j = 0; j < t; ++j) ds(q, j) = store(p(q, j) * (dp[j] - delta) * Ranged(factor));
              for (int64_t k = 0; k < d; ++k) {
                add_stored(dx(row * t + q, i * d + k), dot(
                                                           t, [&](int64_t j) { return ds(q, j); }, [&](int64_t j) { return at(j, kc, k); }));
              }
            }
            for (int64_t j = 0; j < t; ++j) {
              for (int64_t k = 0; k < d; ++k) {
                add_stored(dx(row * t + j, kc + k), dot(
                                                        t, [&](int64_t q) { return ds(q, j); }, [&](int64_t q) { return at(q, i * d, k); }));
                add_stored(dx(row * t + j, vc + k),
                           dot(
                               t, [&](int64_t q) { return p(q, j); }, [&](int64_t q) { return dy(row * t + q, i * d + k); }));
              }
            }
          }
        }
        return std::vector{y, dx};
      },
      {b, t, h * d}};
  for (DType dtype : kDtypes) CHECK(compare(c, dtype) == "");
}

}  // namespace
}  // namespace heddle
