// TransformerConfig: what a model is, as a plain value. A checkpoint stores it, and the model is rebuilt from it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/nn/norm_type.h"

namespace heddle {

// How positions enter: a learned table added to the embedding (GPT-2), rotated queries and keys (RoPE, Su et al. 2021), or not at all.
enum class Position : uint8_t { learned, rope, none };

struct TransformerConfig {
  int64_t vocab = 0, layers = 0, dim = 0, heads = 0;
  int64_t kv_heads = 0;      // 0: heads
  int64_t head_dim = 0;      // 0: dim / heads
  int64_t seq = 1024;        // longest sequence: learned positions and the RoPE table end there
  std::string mlp = "gelu";  // a kind of core/nn/mlp.h
  int64_t mlp_dim = 0;       // hidden size; 0: what the kind makes of dim
  NormType norm = NormType::layer;
  bool norm_affine = true;
  float norm_eps = 1e-5f;
  Position position = Position::learned;
  double rope_theta = 10000;
  bool bias = true;       // linears and LayerNorm
  bool qkv_bias = false;  // of the qkv projection alone (Qwen2)
  bool qk_norm = false, qk_gain = true;
  bool tied = true;
  int64_t window = 0;  // keys a query sees, itself included; 0: all up to it
  float init_std = 0.02f;
  bool zero_init_out = false;  // residual projections start at zero; else init_std / sqrt(2 layers), as GPT-2
  bool recompute = false;      // keep only block inputs for backward

  // Fills what is 0 for "derived"; throws Error(usage) naming the flag when sizes do not fit.
  TransformerConfig resolved() const;
  // Floating-point operations of one training token at sequence length T: 6 N + 6 layers heads head_dim T. N counts the matrices a token is
  // multiplied with (head yes, embedding look-up no); causal attention is counted half, as llm.c does.
  double flops_per_token(int64_t seq) const;
  int64_t matrix_parameters() const;  // those a token is multiplied with, head included
};

// All of it but `recompute`, which is no part of a model, as one JSON object; numbers read back as they were.
std::string to_json(const TransformerConfig& config);
// Error(bad_data) naming `place` when a key is missing, unknown or of the wrong type, or the sizes make no model.
TransformerConfig transformer_config(std::string_view json, const std::string& place);

}  // namespace heddle
