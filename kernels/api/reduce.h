// Reductions. Order is fixed by the shape alone, so results do not depend on the number of threads.
#pragma once

#include <span>

#include "kernels/api/kernel.h"
#include "kernels/api/step_state.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

// out (scalar or (1)) (+)= scale * step->loss_scale * sum of x or of x^2; step may be null (factor 1). x dense, any floating dtype; out its
// accumulator type or f64. Summed in f64 on the CPU; on a GPU 32 elements at a time in f32, these sums in f64.
// scratch: for partial sums; zeroed: a ticket.
struct SumArgs {
  View x;
  Sink out;
  double scale = 1;
  bool squares = false;
  const StepState* step = nullptr;
  std::span<std::byte> scratch = {}, zeroed = {};
};

// out (C) (+)= sum over rows of x (N, C).
struct ColumnSumArgs {
  View x;
  Sink out;
  std::span<std::byte> scratch;
};

// Row softmax: out (N, C) = softmax(scale x). Backward: dx (+)= scale (dy - sum(dy y)) y, from the output y.
struct SoftmaxArgs {
  View x, out;
  float scale = 1;
};
struct SoftmaxBackwardArgs {
  View y, dy;
  Sink dx;
  float scale = 1;
};

// What in these arguments contradicts the above; nullopt: nothing.
Refusal contradiction(const SumArgs&);
Refusal contradiction(const ColumnSumArgs&);
Refusal contradiction(const SoftmaxArgs&);
Refusal contradiction(const SoftmaxBackwardArgs&);

extern Kernel<SumArgs> sum;
extern Kernel<ColumnSumArgs> column_sum;
extern Kernel<SoftmaxArgs> softmax;
extern Kernel<SoftmaxBackwardArgs> softmax_backward;

}  // namespace heddle::kernels
