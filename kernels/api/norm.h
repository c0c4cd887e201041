// LayerNorm (Ba et al. 2016) and RMSNorm (Zhang and Sennrich 2019) with the residual addition fused.
//
//   s = x + residual                     (residual absent: s = x and `sum` may be absent)
//   layer: y = (s - mean) rstd gain + bias          rms: y = s rstd gain          (gain, bias may be absent: 1, 0)
//   rstd = 1 / sqrt(var + eps), var = mean of squares (centred for layer)
// x, residual, sum, y (N, C); gain, bias (C); mean, rstd (N) in f32 (f64 for f64); mean only for layer norm.
// Rows may be strided (row stride free). A (B, T, H, D) tensor normalised per head is passed as rank 4 with C = D: N runs over B, T, H.
//
// Backward, from s, mean, rstd and dy:
//   dx = d(norm) + d_residual            (d_residual (N, C): the gradient that reached `sum`; absent: 0)
//   d_gain, d_bias leave through Sinks, summed over rows in a fixed order.
// dtypes: x, y, residual, gain, bias alike; d_gain, d_bias that dtype or its accumulator type. dx may alias dy or d_residual.
#pragma once

#include <span>

#include "kernels/api/kernel.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

enum class NormKind : uint8_t { layer, rms };

struct NormForwardArgs {
  NormKind kind = NormKind::layer;
  View x, residual, gain, bias;
  View sum, y, mean, rstd;
  float eps = 1e-5f;
};

struct NormBackwardArgs {
  NormKind kind = NormKind::layer;
  View x;  // s of the forward pass
  View gain, mean, rstd, dy, d_residual;
  Sink dx;
  Sink d_gain, d_bias;  // (C)
  std::span<std::byte> scratch;
};

// What in these arguments contradicts the above; nullopt: nothing.
Refusal contradiction(const NormForwardArgs&);
Refusal contradiction(const NormBackwardArgs&);

extern Kernel<NormForwardArgs> norm_forward;
extern Kernel<NormBackwardArgs> norm_backward;

}  // namespace heddle::kernels
