// matmul in float64 from its formula, one output element at a time.
#pragma once

#include <cmath>
#include <vector>

#include "kernels/api/matmul.h"
#include "tests/support/difference.h"

namespace heddle::oracle {

inline double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x)));
}
inline double gelu_derivative(double x) {
  const double u = std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x), slope = std::sqrt(2 / M_PI) * (1 + 3 * 0.044715 * x * x);
  const double sech = 1 / std::cosh(u);  // 1 - tanh^2 would cancel
  return 0.5 * (1 + std::tanh(u)) + 0.5 * x * sech * sech * slope;
}
inline double relu2(double x) {
  return x > 0 ? x * x : 0;
}
inline double relu2_derivative(double x) {
  return x > 0 ? 2 * x : 0;
}

struct MatmulResult {
  std::vector<double> c, c_magnitude;            // (M, N); the magnitude bounds what rounding can act on
  std::vector<double> preact, preact_magnitude;  // (M, N): z
  std::vector<double> column_sum, column_sum_magnitude;
};

// Reads args as they are before the call (c and column_sum too, when accumulated into).
inline MatmulResult matmul(const kernels::MatmulArgs& args) {
  using kernels::Epilogue;
  const auto [m, n, k] = kernels::shape_of(args);
  const auto a = test::values(args.a), b = test::values(args.b);
  const auto at = [](const std::vector<double>& v, int64_t i) { return v[static_cast<size_t>(i)]; };
  const auto optional = [](const View& v) { return v ? test::values(v) : std::vector<double>{}; };
  const auto bias = optional(args.bias), preact = optional(args.preact);
  const auto old_c = optional(args.c.accumulate ? args.c.to : View{}), old_sum = optional(args.column_sum.accumulate ? args.column_sum.to : View{});

  MatmulResult out;
  out.column_sum.assign(static_cast<size_t>(n), 0);
  out.column_sum_magnitude.assign(static_cast<size_t>(n), 0);
  for (int64_t j = 0; j < n && !old_sum.empty(); ++j) {
    out.column_sum[static_cast<size_t>(j)] = at(old_sum, j);
    out.column_sum_magnitude[static_cast<size_t>(j)] = std::abs(at(old_sum, j));
  }
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double z = bias.empty() ? 0 : at(bias, j), size = std::abs(z);
      for (int64_t p = 0; p < k; ++p) {
        const double term = at(a, args.trans_a ? p * m + i : i * k + p) * at(b, args.trans_b ? j * k + p : p * n + j);
        z += term;
        size += std::abs(term);
      }
      out.preact.push_back(z);
      out.preact_magnitude.push_back(size);

      double y = z, y_size = size;
      if (args.epilogue == Epilogue::gelu) {
        y = gelu(z);
        y_size = 1.13 * size + std::abs(z);  // |gelu'| <= 1.129; and the rounding of its own arithmetic
      } else if (args.epilogue == Epilogue::relu2) {
        y = relu2(z);
        y_size = 2 * std::abs(z) * size + size * size * 1e-6 + y;
      } else if (is_backward(args.epilogue)) {
        const double x = at(preact, i * n + j);
        const double slope = args.epilogue == Epilogue::gelu_backward ? gelu_derivative(x) : relu2_derivative(x);
        y = z * slope;
        // gelu' is a sum of terms of size <= 1 + |x|; its rounding errors scale with them where it is near 0
        y_size = size * std::max(std::abs(slope), 2.0);
      }
      out.column_sum[static_cast<size_t>(j)] += y;
      out.column_sum_magnitude[static_cast<size_t>(j)] += y_size;
      const double c = old_c.empty() ? 0 : at(old_c, i * n + j);
      out.c.push_back(c + y);
      out.c_magnitude.push_back(y_size + std::abs(c));
    }
  }
  return out;
}

}  // namespace heddle::oracle
