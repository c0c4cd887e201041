// The layers transformers are made of. Each registers its parameters by name and has one typed forward().
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "core/nn/module.h"
#include "core/nn/norm_type.h"
#include "core/ops/ops.h"

namespace heddle {

// y = x weight^T + bias + residual; weight (out, in).
class Linear final : public Module {
 public:
  struct Options {
    bool bias = false;
    float init_std = 0.02f;
    ParamKind kind = ParamKind::matrix;
    // Several projections in one product: {"q", rows}, {"k", rows}, ... The parameters are then called "<all the names>.weight" and ".bias", their
    // Parts "<name>.weight" and ".bias"; add the layer with an empty name.
    std::vector<std::pair<std::string, int64_t>> stack;
  };
  Linear(int64_t in, int64_t out, Options options);
  Tensor forward(const Tensor& x, const Tensor& residual = {}) const { return linear(x, weight_, tensor_or_none(bias_), residual); }
  const Parameter& weight() const { return weight_; }

 private:
  Parameter weight_, bias_;
};

// LayerNorm (gain, bias when `bias`) or RMSNorm (gain). `affine` false: no parameters.
class Norm final : public Module {
 public:
  struct Options {
    NormType type = NormType::layer;
    bool bias = true, affine = true;
    float eps = 1e-5f;
  };
  Norm(int64_t size, Options options);
  // y, and the sum x + residual for the next residual addition.
  NormOutput forward(const Tensor& x, const Tensor& residual = {}) const;

 private:
  Options options_;
  Parameter gain_, bias_;
};

// Keys and values of the tokens seen so far, for generation.
struct KvCache {
  Tensor k, v;  // (B, capacity, Hkv, D)
  int64_t length = 0;
};

// Causal self-attention: qkv projection, optional QK norm and RoPE, attention, output projection with the residual added.
class CausalSelfAttention final : public Module {
 public:
  struct Options {
    int64_t dim = 0, heads = 0, kv_heads = 0, head_dim = 0;  // head_dim 0: dim / heads
    bool bias = false, qkv_bias = false;                     // qkv_bias: of the qkv projection only (Qwen2)
    bool qk_norm = false, qk_gain = true;
    int64_t window = 0;
    float init_std = 0.02f, out_init_std = 0.02f;
    float norm_eps = 1e-6f;  // of the QK norm
  };
  explicit CausalSelfAttention(Options options);
  // x (B, T, C), residual (B, T, C); rope table (P, D) or undefined; document_start (B, T) or undefined.
  Tensor forward(const Tensor& x, const Tensor& residual, const Tensor& rope, const Tensor& document_start) const;
  // The same for tokens that follow those in the cache; appends theirs. Never recorded.
  Tensor forward(const Tensor& x, const Tensor& residual, const Tensor& rope, KvCache& cache) const;
  int64_t head_dim() const { return options_.head_dim; }

 private:
  Tensor project(const Tensor& x, const Tensor& rope, int64_t first) const;  // (B, T, (H + 2 Hkv) D)

  Options options_;
  Linear qkv_, out_;
  Parameter q_gain_, k_gain_;
};

}  // namespace heddle
