// Named model shapes, and the one dial that derives a shape and its hyper-parameters.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "models/config.h"

namespace heddle {

struct Preset {
  std::string_view name, what;
  TransformerConfig config;
};

// GPT-2 (Radford et al. 2019), Llama 3 (Dubey et al. 2024), Qwen2.5 and Qwen3 (Yang et al. 2024, 2025), and small ones for tests and laptops.
const std::vector<Preset>& presets();
// Throws Error(usage) with the nearest name.
const Preset& preset(std::string_view name);

// --depth N: dim = 64 N, heads of 64, the rest as the plain small-model recipe (RMSNorm, RoPE, QK norm, ReLU^2 MLP of 4 dim, untied head).
TransformerConfig from_depth(int64_t depth);

}  // namespace heddle
