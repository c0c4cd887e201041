// The way into a SwiGLU MLP (Shazeer 2020) as one operation:
//
//   both = x w^T      x (M, K), w (2F, K) = [gate rows, up rows], both (M, 2F) = [gate, up], written when given
//   out = silu(gate) up    (M, F)
//
// One floating dtype for all. out follows from gate and up in f32 (f64 for f64) or after they were rounded to the dtype: an implementation does
// always the one or always the other, whether both is given or not. Last strides are 1, row strides free; results alias nothing. M, K or F may be 0.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/api/kernel.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

struct SwigluMatmulArgs {
  View x, w;
  View both;  // or absent
  View out;
  std::span<std::byte> scratch;
};

extern Kernel<SwigluMatmulArgs> swiglu_matmul;

}  // namespace heddle::kernels
