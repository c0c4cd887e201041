// Rotary embedding in float64, as multiplication of complex numbers.
#pragma once

#include <complex>

#include "kernels/api/rope.h"
#include "tests/oracles/values.h"

namespace heddle::oracle {

inline Values rope(const kernels::RopeArgs& args) {
  Values out(args.x.numel());
  const int64_t length = args.x.size(1), heads = args.x.size(2), d = args.x.size(3);
  for (int64_t row = 0; row < args.x.numel() / d; ++row) {
    const int64_t h = row % heads, t = row / heads % length;
    for (int64_t i = 0; i < d / 2; ++i) {
      const std::complex<double> x(test::element(args.x, row * d + i), test::element(args.x, row * d + i + d / 2));
      const int64_t angle = (args.first + t) * d + i;
      std::complex<double> turn(test::element(args.table, angle), test::element(args.table, angle + d / 2));
      if (args.inverse) turn = std::conj(turn);
      const std::complex<double> y = h < args.rotated ? x * turn : x;
      const double size = h < args.rotated ? std::abs(x.real()) + std::abs(x.imag()) : 0;  // a copied element is exact
      out.add(row * d + i, y.real(), size);
      out.add(row * d + i + d / 2, y.imag(), size);
    }
  }
  return out;
}

}  // namespace heddle::oracle
