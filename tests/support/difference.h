// Comparing kernel outputs with float64 oracles. The bound of every element is derived from the dtype's rounding and the length of the
// reduction behind it (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., section 3.1), never tuned.
//
//   const Bound bound{DType::f32, K};                  // K-term sums accumulated in f32, stored as f32
//   difference(got_view, want, magnitude, bound) == ""    // |got - want| <= bound(want, magnitude)
//
// `want` and `magnitude` are the oracle's value and the sum of the absolute values of the terms it added, in the view's row-major order.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/api/types.h"

namespace heddle::test {

// Unit roundoff: the largest relative error of one rounding to nearest.
constexpr double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::f64: return 0x1p-53;
    case DType::f32: return 0x1p-24;
    case DType::bf16: return 0x1p-8;
    default: return 0;
  }
}

// gamma_n = n u / (1 - n u): the relative error of n roundings in a row.
inline double gamma(double n, DType dtype) {
  const double nu = n * unit_roundoff(dtype);
  return nu / (1 - nu);
}

struct Bound {
  DType stored = DType::f32;  // what the output is rounded to
  double terms = 1;           // roundings of the accumulator on the way: length of the reduction plus operations after it

  double operator()(double want, double magnitude) const {
    const double inside = gamma(terms, accumulator_of(stored)) * magnitude;
    const double outside = stored == accumulator_of(stored) ? 0 : unit_roundoff(stored) * (std::abs(want) + inside);
    // One denormal: below it rounding is absolute.
    return inside + outside + (stored == DType::f64 ? 0x1p-1074 : 0x1p-133);
  }
};

// Element i (row-major over the shape) of a strided view, as double.
inline double element(const View& view, int64_t i) {
  int64_t at = 0;
  for (int axis = view.rank - 1; axis >= 0; --axis) {
    at += (i % view.shape[axis]) * view.stride[axis];
    i /= view.shape[axis];
  }
  switch (view.dtype) {
    case DType::f64: return view.as<const double>()[at];
    case DType::f32: return view.as<const float>()[at];
    case DType::bf16: return static_cast<float>(view.as<const bf16>()[at]);
    case DType::i32: return view.as<const int32_t>()[at];
    case DType::u16: return view.as<const uint16_t>()[at];
    case DType::u8: return view.as<const uint8_t>()[at];
  }
  return 0;
}

// All elements of a strided view, row-major, as double.
inline std::vector<double> values(const View& view) {
  std::vector<double> out(static_cast<size_t>(view.numel()));
  const int64_t row = view.rank ? std::max<int64_t>(view.size(-1), 1) : 1;
  View line = view;  // one row at a time: index arithmetic per element would dominate large tests
  line.rank = view.rank ? 1 : 0;
  line.shape[0] = row;
  line.stride[0] = view.rank ? view.step(-1) : 1;
  for (int64_t first = 0; first < view.numel(); first += row) {
    int64_t at = 0, rest = first / row;
    for (int axis = view.rank - 2; axis >= 0; --axis) {
      at += rest % view.shape[axis] * view.stride[axis];
      rest /= view.shape[axis];
    }
    line.data = view.data + at * size_of(view.dtype);
    for (int64_t j = 0; j < row; ++j) out[static_cast<size_t>(first + j)] = element(line, j);
  }
  return out;
}

// "" when every element is within its bound; otherwise how many are not and the worst of them. NaN and Inf must match exactly.
// `bounds[i]` is the allowed |got - want| of element i.
inline std::string difference(const View& got, const std::vector<double>& want, const std::vector<double>& bounds) {
  if (static_cast<size_t>(got.numel()) != want.size()) return concat("sizes differ: ", got.numel(), " and ", want.size());
  int64_t wrong = 0, worst = 0;
  double worst_ratio = 0;
  const std::vector<double> all = values(got);
  for (int64_t i = 0; i < got.numel(); ++i) {
    const double g = all[static_cast<size_t>(i)], w = want[static_cast<size_t>(i)], b = bounds[static_cast<size_t>(i)];
    const bool same = (std::isnan(g) && std::isnan(w)) || g == w || std::abs(g - w) <= b;
    if (same) continue;
    ++wrong;
    const double ratio = std::isfinite(g - w) ? std::abs(g - w) / b : std::numeric_limits<double>::infinity();
    if (ratio > worst_ratio) {
      worst_ratio = ratio;
      worst = i;
    }
  }
  if (wrong == 0) return "";
  return concat(wrong, " of ", got.numel(), " elements of ", shape_text(got), " differ; worst at flat index ", worst, ": got ", element(got, worst),
                ", want ", want[static_cast<size_t>(worst)], ", allowed ", bounds[static_cast<size_t>(worst)], ", ratio ", worst_ratio);
}

inline std::string difference(const View& got, const std::vector<double>& want, const std::vector<double>& magnitude, const Bound& bound) {
  std::vector<double> bounds(want.size());
  for (size_t i = 0; i < want.size(); ++i) bounds[i] = bound(want[i], magnitude[i]);
  return difference(got, want, bounds);
}

}  // namespace heddle::test
