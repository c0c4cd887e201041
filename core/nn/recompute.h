// Activation recomputation: memory for time.
#pragma once

#include <functional>

#include "core/nn/module.h"

namespace heddle {

// y = fn(x), without keeping what backward needs: backward runs fn again. `region` holds every parameter fn uses; random numbers are keyed, so the
// second run draws the same ones (Chen et al. 2016, "Training deep nets with sublinear memory cost").
Tensor recompute(const Module& region, const std::function<Tensor(const Tensor&)>& fn, const Tensor& x);

}  // namespace heddle
