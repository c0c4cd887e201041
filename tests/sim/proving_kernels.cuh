// What the tiles of proving_kernels.cu and proving_kernels_sm90.cu share.
#pragma once

#include "kernels/api/check.h"
#include "kernels/arch/fragments.h"
#include "kernels/cuda/matmul_layout.h"

namespace heddle::test {

using kernels::cuda::MatmulLayout;

inline constexpr MatmulLayout kForward = MatmulLayout::forward, kInput = MatmulLayout::input_gradient, kWeight = MatmulLayout::weight_gradient;

template <class Config>
constexpr Config with_layout(Config config, MatmulLayout layout) {
  config.a = layout == kWeight ? Major::mn : Major::k;
  config.b = layout == kForward ? Major::k : Major::mn;
  return config;
}
[[noreturn]] inline void not_built() {
  fail("test", "this tile is not built for this layout");
}

}  // namespace heddle::test
