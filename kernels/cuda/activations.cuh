// The activations and their derivatives, element by element in f32; the formulas are those of kernels/cpu/vec_internal.h.
#pragma once

#include "kernels/arch/ptx.h"

namespace heddle::kernels::cuda::thread {

// 1 / (1 + e^-x), where it is small as e^x / (1 + e^x).
__device__ __forceinline__ float sigmoid(float x) {
  const float e = expf(-fabsf(x)), s = ptx::rcp(1.0f + e);
  return x < 0 ? e * s : s;
}
__device__ __forceinline__ float sigmoid_derivative(float x) {
  const float e = expf(-fabsf(x)), s = ptx::rcp(1.0f + e);
  return e * s * s;
}
// 1 - tanh(x)^2, which would cancel, as 4 e / (1 + e)^2 with e = e^-2|x|.
__device__ __forceinline__ float tanh_derivative(float x) {
  return 4.0f * sigmoid_derivative(x + x);
}

// The tanh form, as x sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3): 1 + tanh(u) == 2 sigmoid(2u), and the product keeps its relative
// accuracy where 1 + tanh(u) cancels.
inline constexpr float kGeluScale = 1.5957691216057308f;  // 2 sqrt(2 / pi)
inline constexpr float kGeluCubic = 0.044715f;

__device__ __forceinline__ float gelu(float x) {
  return x * sigmoid(kGeluScale * x * fmaf(kGeluCubic * x, x, 1.0f));
}
// s + x s (1 - s) (2u)', with 1 - s as s e^-2u: a difference would lose what x (2u)' magnifies. Beyond the clamp, which keeps NaN, it is 1 or 0 to
// the last bit, and e^-2u does not overflow within.
__device__ __forceinline__ float gelu_derivative(float x) {
  constexpr float kClamp = 9.5f;
  x = x > kClamp ? kClamp : x;
  x = x < -kClamp ? -kClamp : x;
  const float xx = x * x;
  const float e = expf(-kGeluScale * x * fmaf(kGeluCubic, xx, 1.0f));
  const float s = ptx::rcp(1.0f + e);
  const float slope = kGeluScale * fmaf(3.0f * kGeluCubic, xx, 1.0f);
  return fmaf(x * slope * s, e * s, s);
}

// max(x, 0)^2; NaN stays.
__device__ __forceinline__ float relu2(float x) {
  const float p = x < 0 ? 0.0f : x;
  return p * p;
}
__device__ __forceinline__ float relu2_derivative(float x) {
  const float p = x < 0 ? 0.0f : x;
  return p + p;
}

__device__ __forceinline__ float silu(float x) {
  return x * sigmoid(x);
}
// s (1 + x (1 - s)) with s = sigmoid(x).
__device__ __forceinline__ float silu_derivative(float x, float s) {
  return s * fmaf(x, 1.0f - s, 1.0f);
}

}  // namespace heddle::kernels::cuda::thread
