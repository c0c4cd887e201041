// Elementwise operations in float64.
#pragma once

#include "kernels/api/pointwise.h"
#include "tests/oracles/matmul.h"  // gelu, relu2
#include "tests/oracles/values.h"

namespace heddle::oracle {

inline double sigmoid(double x) {
  return 1 / (1 + std::exp(-x));
}
inline double silu(double x) {
  return x * sigmoid(x);
}
inline double silu_derivative(double x) {
  return sigmoid(x) * (1 + x * sigmoid(-x));
}

inline Values axpby(const kernels::AxpbyArgs& args) {
  Values out(args.out);
  for (int64_t i = 0; i < args.a.numel(); ++i) {
    out.add(i, args.alpha * test::element(args.a, i));
    if (args.b) out.add(i, args.beta * test::element(args.b, i));
  }
  return out;
}

inline Values multiply(const kernels::MultiplyArgs& args) {
  Values out(args.out);
  for (int64_t i = 0; i < args.a.numel(); ++i) out.add(i, test::element(args.a, i) * test::element(args.b, i % args.b.numel()));
  return out;
}

inline Values divide(const kernels::DivideArgs& args) {
  Values out(args.out);
  for (int64_t i = 0; i < args.a.numel(); ++i)
    out.add(i, args.scale * test::element(args.a, i) * (args.c ? test::element(args.c, i) : 1) / test::element(args.b, i % args.b.numel()));
  return out;
}

inline double sech2(double x) {
  return 1 / std::cosh(x) / std::cosh(x);  // 1 - tanh^2 would cancel
}

// Rounding errors of an activation scale with |x|: it is x times a factor in [0, 1.13].
inline Values map(const kernels::MapArgs& args) {
  Values out(args.x.numel());
  for (int64_t i = 0; i < args.x.numel(); ++i) {
    const double x = test::element(args.x, i);
    switch (args.map) {
      case kernels::Map::gelu: out.add(i, gelu(x), std::abs(x)); break;
      case kernels::Map::relu2: out.add(i, relu2(x)); break;
      case kernels::Map::silu: out.add(i, silu(x), std::abs(x)); break;
      case kernels::Map::sigmoid: out.add(i, sigmoid(x)); break;
      case kernels::Map::tanh: out.add(i, std::tanh(x)); break;
      case kernels::Map::exp: out.add(i, std::exp(x)); break;
      case kernels::Map::log: out.add(i, std::log(x)); break;
      case kernels::Map::softcap: out.add(i, static_cast<double>(args.cap) * std::tanh(x / static_cast<double>(args.cap))); break;
    }
  }
  return out;
}

// gelu' = s + x s (1 - s) w: the rounding of s reaches the second term through 1 - s, so its size is |x| w however small s (1 - s) is. Beyond
// |x| = 8 that term is 0 to the last bit of either dtype.
inline Values map_backward(const kernels::MapBackwardArgs& args) {
  Values out(args.dx);
  for (int64_t i = 0; i < args.x.numel(); ++i) {
    const double x = test::element(args.x, i), dy = test::element(args.dy, i), near = std::min(std::abs(x), 8.0);
    switch (args.map) {
      case kernels::Map::gelu: out.add(i, dy * gelu_derivative(x), std::abs(dy) * (1 + 1.6 * near * (1 + 0.135 * near * near))); break;
      case kernels::Map::relu2: out.add(i, dy * relu2_derivative(x)); break;
      case kernels::Map::silu: out.add(i, dy * silu_derivative(x), std::abs(dy) * (1 + std::min(std::abs(x), 100.0))); break;
      case kernels::Map::sigmoid: out.add(i, dy * sigmoid(x) * sigmoid(-x)); break;
      case kernels::Map::tanh: out.add(i, dy * sech2(x)); break;
      case kernels::Map::exp: out.add(i, dy * std::exp(x)); break;
      case kernels::Map::log: out.add(i, dy / x); break;
      case kernels::Map::softcap: {  // the rounding of x / cap reaches e^-2x/cap
        const double t = x / static_cast<double>(args.cap);
        out.add(i, dy * sech2(t), std::abs(dy) * sech2(t) * (1 + 2 * std::min(std::abs(t), 100.0)));
        break;
      }
    }
  }
  return out;
}

inline Values swiglu(const kernels::SwigluArgs& args) {
  Values out(args.out.numel());
  const int64_t f = args.out.size(-1);
  for (int64_t i = 0; i < args.out.numel(); ++i) {
    const int64_t at = i / f * 2 * f + i % f;
    const double gate = test::element(args.x, at), up = test::element(args.x, at + f);
    out.add(i, silu(gate) * up, std::abs(gate * up));
  }
  return out;
}
inline Values swiglu_backward(const kernels::SwigluBackwardArgs& args) {
  Values dx(args.x.numel());
  const int64_t f = args.d_out.size(-1);
  for (int64_t i = 0; i < args.d_out.numel(); ++i) {
    const int64_t at = i / f * 2 * f + i % f;
    const double gate = test::element(args.x, at), up = test::element(args.x, at + f), d = test::element(args.d_out, i);
    dx.add(at, d * up * silu_derivative(gate), std::abs(d * up) * (1 + std::abs(gate)));
    dx.add(at + f, d * silu(gate), std::abs(d * gate));
  }
  return dx;
}

}  // namespace heddle::oracle
