// The kinds of MLP there are; parallel/mlp.h is the layer. A kind is registered once, in mlp.cpp: flags, configurations, checkpoints, presets, memory
// plans and benches take what they need from there.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/weight.h"

namespace heddle {

struct MlpWeights {
  Weight in, in_bias;    // (gated ? 2 F : F, C): gate over up where gated; (F)
  Weight out, out_bias;  // (C, F); (C)
};

struct MlpKind {
  std::string_view name;  // "--mlp NAME"
  bool gated;             // two projections in, "gate" and "up", else "up" alone
  bool biases;            // it can have them
  int64_t (*hidden)(int64_t dim);
  Tensor (*forward)(const Tensor& x, const MlpWeights& weights);  // x (N, C) to (N, C)

  int matrices() const { return gated ? 3 : 2; }  // each (F, C) or (C, F)
};

std::span<const MlpKind> mlp_kinds();
// Error(usage) that lists the kinds.
const MlpKind& mlp_kind(std::string_view name);

}  // namespace heddle
