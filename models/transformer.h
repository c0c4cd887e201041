// One decoder-only Transformer that is GPT-2, Llama or Qwen by configuration.
//
//   h = embedding(tokens) [+ learned positions]
//   for each block:  h = h + attention(norm(h));  h = h + mlp(norm(h))                              (pre-norm residuals)
//   loss = cross entropy of head(norm(h)), head tied to the embedding or its own
// Parameters are named tok.weight, pos.weight, blocks.<i>.{norm1,attn,norm2,mlp}.*, norm.*, head.weight.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/layers.h"
#include "core/nn/module.h"

namespace heddle {

enum class Position : uint8_t { learned, rope, none };

struct TransformerConfig {
  int64_t vocab = 0, layers = 0, dim = 0, heads = 0;
  int64_t kv_heads = 0;  // 0: heads
  int64_t head_dim = 0;  // 0: dim / heads
  int64_t seq = 1024;    // longest sequence: learned positions and the RoPE table end there
  MlpType mlp = MlpType::gelu;
  int64_t mlp_dim = 0;  // hidden size; 0: 4 dim (swiglu: 8/3 dim rounded up to a multiple of 64)
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

class Block final : public Module {
 public:
  Block(const TransformerConfig& config, int64_t index);
  Tensor forward(const Tensor& h, const Tensor& rope, const Tensor& document_start) const;  // (B, T, C)
  Tensor forward(const Tensor& h, const Tensor& rope, KvCache& cache) const;

 private:
  Norm norm1_;
  CausalSelfAttention attn_;
  Norm norm2_;
  Mlp mlp_;
};

class Transformer final : public Module {
 public:
  explicit Transformer(const TransformerConfig& config);

  // Tokens (B, T) i32, document_start (B, T) i32 or undefined, to the normalised last hidden state (B, T, C).
  Tensor hidden(const Tensor& tokens, const Tensor& document_start = {}) const;
  // scale times the sum of the cross entropy of targets (B, T) i32.
  Tensor loss(const Tensor& tokens, const Tensor& targets, const Tensor& document_start, const LossOptions& options) const;  // ()
  // The negative log likelihood of every target, in nats; 0 where ignored.
  Tensor token_losses(const Tensor& tokens, const Tensor& targets, const Tensor& document_start) const;  // (B T)

  struct Cache {
    std::vector<KvCache> layers;
    int64_t length() const { return layers.empty() ? 0 : layers[0].length; }
  };
  Cache make_cache(int64_t batch, int64_t capacity) const;
  // Logits of the last of the given tokens, which follow those in the cache: tokens (B, T) to (B, V).
  Tensor next_logits(const Tensor& tokens, Cache& cache) const;

  const TransformerConfig& config() const { return config_; }
  const Parameter& head() const { return head_; }

 private:
  Tensor rope_table_on(Device device) const;

  TransformerConfig config_;
  Parameter tok_, pos_, head_;
  std::vector<std::unique_ptr<Block>> blocks_;
  Norm norm_;
  mutable Tensor rope_;  // (seq, D), made at the first use
};

}  // namespace heddle
