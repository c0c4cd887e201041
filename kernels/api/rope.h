// Rotary position embedding (Su et al. 2021), half rotation as in Hugging Face models: element i pairs with i + D/2.
//
//   x (B, T, H, D), D even; out = x rotated by the angles of position first + t; inverse rotates back (the backward pass).
//   table (P, D) f32: cos in columns [0, D/2), sin in [D/2, D), one row a position; P >= first + T
// Only heads [0, rotated) turn; the others are copied (not touched when out aliases x). In place allowed. dtypes f32, bf16, f64.
#pragma once

#include "kernels/api/kernel.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

struct RopeArgs {
  View x, out, table;
  int64_t first = 0, rotated = 0;
  bool inverse = false;
};

extern Kernel<RopeArgs> rope;

}  // namespace heddle::kernels
