// A limit that is approached softly (Gemma 2, Riviere et al. 2024).
#pragma once

#include "kernels/api/kernel.h"
#include "kernels/api/role.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

// Without dy: out (+)= cap tanh(x / cap). With it: out (+)= dy (1 - tanh(x / cap)^2), the gradient of x. All dense, of one shape and floating dtype;
// out may be x's accumulator type.
struct SquashArgs {
  View x, dy;
  Sink out;
  float cap = 1;
};

template <class Visit>
void each_operand(SquashArgs& a, Visit visit) {
  visit(a.x, Role::normal), visit(a.dy, Role::normal);
  visit_sink(a.out, visit);
}

extern Kernel<SquashArgs> squash;

}  // namespace heddle::kernels
