// LayerNorm and RMSNorm in float64, a row at a time.
#pragma once

#include "kernels/api/norm.h"
#include "tests/oracles/values.h"

namespace heddle::oracle {

struct NormResult {
  std::vector<double> sum;  // s, rounded to its dtype: exact
  Values y, mean, rstd;
};

inline NormResult norm_forward(const kernels::NormForwardArgs& args) {
  const int64_t columns = args.x.size(-1), rows = args.x.numel() / columns;
  const bool layer = args.kind == kernels::NormKind::layer;
  NormResult out{{}, Values(args.x.numel()), Values(layer ? rows : 0), Values(rows)};
  for (int64_t row = 0; row < rows; ++row) {
    std::vector<double> s;
    double mean = 0, size = 0, squares = 0;
    for (int64_t c = 0; c < columns; ++c) {
      const int64_t i = row * columns + c;
      s.push_back(rounded(args.x.dtype, test::element(args.x, i) + (args.residual ? test::element(args.residual, i) : 0)));
      mean += s.back() / static_cast<double>(columns);
      size += std::abs(s.back()) / static_cast<double>(columns);
    }
    if (!layer) mean = size = 0;
    for (double v : s) squares += (v - mean) * (v - mean) / static_cast<double>(columns);
    const double rstd = 1 / std::sqrt(squares + args.eps);
    if (layer) out.mean.add(row, mean, size);
    // (s - mean) carries the mean's error, which scales with `size`: relative to the deviation it reaches rstd.
    const double deviation = std::sqrt(squares + args.eps);
    out.rstd.add(row, rstd, rstd * (1 + size / deviation));
    for (int64_t c = 0; c < columns; ++c) {
      const double v = s[static_cast<size_t>(c)], gain = args.gain ? test::element(args.gain, c) : 1,
                   bias = args.bias ? test::element(args.bias, c) : 0;
      out.y.add(row * columns + c, (v - mean) * rstd * gain + bias,
                (std::abs(v) + size) * rstd * std::abs(gain) * (1 + size / deviation) + std::abs(bias));
    }
    out.sum.insert(out.sum.end(), s.begin(), s.end());
  }
  return out;
}

struct NormGradient {
  Values dx, d_gain, d_bias;
};

// From the mean and rstd that are stored.
inline NormGradient norm_backward(const kernels::NormBackwardArgs& args) {
  const int64_t columns = args.x.size(-1), rows = args.x.numel() / columns;
  const bool layer = args.kind == kernels::NormKind::layer;
  NormGradient out{Values(args.dx), Values(columns), Values(columns)};
  if (args.d_gain) out.d_gain = Values(args.d_gain);
  if (args.d_bias) out.d_bias = Values(args.d_bias);
  for (int64_t row = 0; row < rows; ++row) {
    const double mean = layer ? test::element(args.mean, row) : 0, rstd = test::element(args.rstd, row), share = 1 / static_cast<double>(columns);
    double mean_g = 0, mean_gn = 0, size_g = 0, size_gn = 0;
    const auto at = [&](int64_t c) { return row * columns + c; };
    const auto n_of = [&](int64_t c) { return (test::element(args.x, at(c)) - mean) * rstd; };
    const auto n_size = [&](int64_t c) { return (std::abs(test::element(args.x, at(c))) + std::abs(mean)) * rstd; };
    const auto g_of = [&](int64_t c) { return test::element(args.dy, at(c)) * (args.gain ? test::element(args.gain, c) : 1); };
    for (int64_t c = 0; c < columns; ++c) {
      mean_g += layer ? g_of(c) * share : 0;
      size_g += layer ? std::abs(g_of(c)) * share : 0;
      mean_gn += g_of(c) * n_of(c) * share;
      size_gn += std::abs(g_of(c)) * n_size(c) * share;
    }
    for (int64_t c = 0; c < columns; ++c) {
      const double dy = test::element(args.dy, at(c)), r = args.d_residual ? test::element(args.d_residual, at(c)) : 0;
      out.dx.add(at(c), rstd * (g_of(c) - mean_g - n_of(c) * mean_gn) + r, rstd * (std::abs(g_of(c)) + size_g + n_size(c) * size_gn) + std::abs(r));
      out.d_gain.add(c, dy * n_of(c), std::abs(dy) * n_size(c));
      out.d_bias.add(c, dy);
    }
  }
  return out;
}

}  // namespace heddle::oracle
