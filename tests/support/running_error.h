// Numbers that carry a bound of their own error: running error analysis (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.3).
//
// A Ranged holds the exact result (in f64) of an oracle's formula and how far a kernel may be from it that works in some dtype: every operation adds
// u |result| for its own rounding and passes on its operands' errors; dot() allows any order of its additions; store() rounds to the tensor's dtype.
// An oracle written with them gives values and tolerances for f64, f32 and bf16 at once, with nothing tuned.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "tests/support/compare.h"

namespace heddle::test {

// What a kernel of this dtype rounds with: u of the accumulator for arithmetic, of the dtype where it stores.
struct Rounding {
  DType dtype = DType::f64;
  double u() const { return unit_roundoff(accumulator_of(dtype)); }
  double stored() const { return dtype == accumulator_of(dtype) ? 0 : unit_roundoff(dtype); }
};
inline Rounding& rounding() {
  static thread_local Rounding current;
  return current;
}

struct Ranged {
  double v = 0, e = 0;
  Ranged(double value = 0, double error = 0) : v(value), e(error) {}
  double magnitude() const { return std::abs(v) + e; }
};
inline Ranged rounded(double v, double e) {
  return {v, e + rounding().u() * (std::abs(v) + e)};
}
inline Ranged operator+(Ranged a, Ranged b) {
  return rounded(a.v + b.v, a.e + b.e);
}
inline Ranged operator-(Ranged a, Ranged b) {
  return rounded(a.v - b.v, a.e + b.e);
}
inline Ranged operator*(Ranged a, Ranged b) {
  return rounded(a.v * b.v, std::abs(a.v) * b.e + a.e * std::abs(b.v) + a.e * b.e);
}
inline Ranged store(Ranged a) {
  return {a.v, a.e + rounding().stored() * a.magnitude()};
}
// f(a) where |f'| <= lipschitz; the kernel's own evaluation is good to 16 u (|a| + |f| + 1): polynomial and tanh forms are within a few ulps.
inline Ranged apply(double (*f)(double), Ranged a, double lipschitz) {
  const double v = f(a.v);
  return {v, lipschitz * a.e + 16 * rounding().u() * (std::abs(a.v) + std::abs(v) + 1)};
}
// exp(a): the error is relative.
inline Ranged exp(Ranged a) {
  const double v = std::exp(a.v);
  return {v, v * std::expm1(a.e + 16 * rounding().u() * (1 + a.magnitude()))};
}
inline Ranged rsqrt(Ranged a) {
  const double v = 1 / std::sqrt(a.v), low = std::max(a.v - a.e, 0.5 * a.v);
  return rounded(v, 0.5 * a.e / (low * std::sqrt(low)) + 4 * rounding().u() * v);
}

// (N, C): leading sizes of a tensor flattened.
struct Matrix {
  int64_t rows = 0, columns = 0;
  std::vector<Ranged> x;
  Matrix(int64_t r, int64_t c) : rows(r), columns(c), x(static_cast<size_t>(r * c)) {}
  explicit Matrix(const Tensor& t) : Matrix(t.numel() / t.size(-1), t.size(-1)) {
    const std::vector<double> values = t.to_vector();
    for (size_t i = 0; i < x.size(); ++i) x[i] = values[i];
  }
  Ranged& operator()(int64_t r, int64_t c) { return x[static_cast<size_t>(r * columns + c)]; }
  Ranged operator()(int64_t r, int64_t c) const { return x[static_cast<size_t>(r * columns + c)]; }
  Matrix transposed() const {
    Matrix t(columns, rows);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < columns; ++c) t(c, r) = (*this)(r, c);
    }
    return t;
  }
};

// sum_k a(k) b(k), added in any order: gamma_{n+1} of the sum of magnitudes.
using Term = std::function<Ranged(int64_t)>;  // type-erased: oracles are compiled often and run seldom
inline Ranged dot(int64_t n, const Term& a, const Term& b) {
  double v = 0, e = 0, magnitude = 0;
  for (int64_t k = 0; k < n; ++k) {
    const Ranged x = a(k), y = b(k);
    v += x.v * y.v;
    e += std::abs(x.v) * y.e + x.e * std::abs(y.v) + x.e * y.e;
    magnitude += x.magnitude() * y.magnitude();
  }
  return {v, e + gamma(static_cast<double>(n + 1), accumulator_of(rounding().dtype)) * magnitude};
}
inline Ranged total(int64_t n, const Term& a) {
  return dot(n, a, [](int64_t) { return Ranged(1); });
}

// f(r, c) for every element, stored.
inline Matrix tabulate(int64_t rows, int64_t columns, const std::function<Ranged(int64_t, int64_t)>& f) {
  Matrix m(rows, columns);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) m(r, c) = store(f(r, c));
  }
  return m;
}
// a b^T, stored.
inline Matrix product_t(const Matrix& a, const Matrix& b) {
  return tabulate(a.rows, b.rows, [&](int64_t r, int64_t c) {
    return dot(
        a.columns, [&](int64_t k) { return a(r, k); }, [&](int64_t k) { return b(c, k); });
  });
}
inline Matrix product(const Matrix& a, const Matrix& b) {
  return product_t(a, b.transposed());
}
inline Matrix column_sum(const Matrix& a) {
  return tabulate(1, a.columns, [&](int64_t, int64_t c) { return total(a.rows, [&](int64_t r) { return a(r, c); }); });
}

// "" when every element of `got` is within the oracle's bound.
inline std::string difference(const Tensor& got, const Matrix& want) {
  std::vector<double> values, bounds;
  for (const Ranged& r : want.x) values.push_back(r.v), bounds.push_back(r.e);
  const Tensor here = Tensor::from(got.to_vector(), got.shape(), got.dtype());
  return difference(here.view(), values, bounds);
}

}  // namespace heddle::test
