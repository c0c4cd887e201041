// Activations in float64.
#pragma once

#include <cmath>

#include "kernels/arch/platform.h"

namespace heddle::bench {

constexpr double kRootTwoByPi = 0.79788456080286535588;

__device__ inline double gelu(double x) {
  return 0.5 * x * (1 + ::tanh(kRootTwoByPi * (x + 0.044715 * x * x * x)));
}
__device__ inline double gelu_derivative(double x) {
  const double u = kRootTwoByPi * (x + 0.044715 * x * x * x), slope = kRootTwoByPi * (1 + 3 * 0.044715 * x * x);
  const double sech = 1 / ::cosh(u);
  return 0.5 * (1 + ::tanh(u)) + 0.5 * x * sech * sech * slope;
}
__device__ inline double relu2(double x) {
  return x > 0 ? x * x : 0;
}
__device__ inline double relu2_derivative(double x) {
  return x > 0 ? 2 * x : 0;
}
__device__ inline double sigmoid(double x) {
  return 1 / (1 + ::exp(-x));
}
__device__ inline double silu(double x) {
  return x * sigmoid(x);
}
__device__ inline double silu_derivative(double x) {
  return sigmoid(x) * (1 + x * (1 - sigmoid(x)));
}
// What a float64 becomes where a kernel stores it and reads it again.
__device__ inline double rounded(DType dtype, double x) {
  if (dtype == DType::f32) return static_cast<double>(static_cast<float>(x));
  if (dtype == DType::bf16) return static_cast<double>(static_cast<float>(bf16(static_cast<float>(x))));
  return x;
}

}  // namespace heddle::bench
