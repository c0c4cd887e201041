// A limit that is approached softly (Gemma 2, Riviere et al. 2024).
#pragma once

#include "kernels/api/kernel.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

// Without dy: out (+)= cap tanh(x / cap). With it: out (+)= dy (1 - tanh(x / cap)^2), the gradient of x. All dense, of one shape and floating dtype;
// out may be x's accumulator type.
struct SquashArgs {
  View x, dy;
  Sink out;
  float cap = 1;
};

extern Kernel<SquashArgs> squash;

}  // namespace heddle::kernels
