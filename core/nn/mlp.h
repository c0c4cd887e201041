// The MLP of a transformer block, and the kinds there are. A kind is registered once, in mlp.cpp: flags, configurations, checkpoints, presets, memory
// plans and benches take what they need from there.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "core/nn/module.h"

namespace heddle {

struct MlpWeights {
  Tensor in, in_bias;    // (gated ? 2 F : F, C): gate over up where gated; (F)
  Tensor out, out_bias;  // (C, F); (C)
};

struct MlpKind {
  std::string_view name;  // "--mlp NAME"
  bool gated;             // two projections in, "gate" and "up", else "up" alone
  bool biases;            // it can have them
  int64_t (*hidden)(int64_t dim);
  // x (N, C) to (N, C), plus the residual, which may be undefined.
  Tensor (*forward)(const Tensor& x, const MlpWeights& weights, const Tensor& residual);

  int matrices() const { return gated ? 3 : 2; }  // each (F, C) or (C, F)
};

std::span<const MlpKind> mlp_kinds();
// Error(usage) that lists the kinds.
const MlpKind& mlp_kind(std::string_view name);

class Mlp final : public Module {
 public:
  struct Options {
    std::string_view kind = "gelu";
    int64_t dim = 0, hidden = 0;
    bool bias = false;
    float init_std = 0.02f, out_init_std = 0.02f;
  };
  explicit Mlp(const Options& options);
  Tensor forward(const Tensor& x, const Tensor& residual = {}) const;  // x, residual (B, T, C)

 private:
  const MlpKind& kind_;
  Parameter in_, in_bias_, out_, out_bias_;
};

}  // namespace heddle
