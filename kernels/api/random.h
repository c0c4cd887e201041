// Random numbers as pure functions of (key, element index): see philox.h.
#pragma once

#include "kernels/api/kernel.h"
#include "kernels/api/philox.h"
#include "kernels/api/step_state.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

// out[i] = mean + std N(0, 1), element i of the unsharded tensor being first + i. out dense.
struct NormalArgs {
  View out;
  RngKey key;
  uint64_t first = 0;
  float mean = 0, std = 1;
};

// Inverted dropout (Srivastava et al. 2014): out = x keep(i) / (1 - p), keep(i) = uniform(key, i) >= p. The mask is not stored: backward runs
// this again on dy with the same key. step, when given, replaces key.stream by step->rng_stream. x, out dense; in place allowed.
struct DropoutArgs {
  View x;
  Sink out;
  RngKey key;
  uint64_t first = 0;
  float p = 0;
  const StepState* step = nullptr;
};

extern Kernel<NormalArgs> normal;
extern Kernel<DropoutArgs> dropout;

}  // namespace heddle::kernels
