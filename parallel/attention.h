// Causal self-attention, split by heads over the tensor-parallel ranks.
#pragma once

#include <cstdint>

#include "parallel/tensor_parallel.h"

namespace heddle {

// Keys and values of the tokens seen so far, for generation; this rank's heads.
struct KvCache {
  Tensor kv;           // (B, capacity, 2 Hkv, D): a token's keys, then its values
  int64_t length = 0;  // of every text, where they are continued alike
};

// Where a decoding step puts one token of each text: on the device, so that a recorded step finds them there.
struct DecodePlaces {
  Tensor position;  // (B) i32: the token's place in its text
  Tensor row;       // (B) i32: the cache's row b capacity + position
  Tensor angles;    // (B, D): the rows of the RoPE table for them, or undefined
};

// qkv projection, optional QK norm and RoPE, attention, output projection. H and Hkv below count this rank's heads; fewer KV heads than ranks are
// shared by neighbours, which have the query heads they serve.
class CausalSelfAttention final : public Module {
 public:
  struct Options {
    int64_t dim = 0, heads = 0, kv_heads = 0, head_dim = 0;  // of all ranks; head_dim 0: dim / heads
    bool bias = false, qkv_bias = false;                     // qkv_bias: of the qkv projection only (Qwen2)
    bool qk_norm = false, qk_gain = true;
    int64_t window = 0;
    float init_std = 0.02f, out_init_std = 0.02f;
    float norm_eps = 1e-6f;  // of the QK norm
  };
  explicit CausalSelfAttention(const Options& options, const MeshShape& mesh = {});
  // x (B, T, C) to (B, T, C); rope table (P, D) or undefined; document_start (B, T) or undefined.
  Tensor forward(const Tensor& x, const Tensor& rope, const Tensor& document_start) const;
  // The same for tokens that follow those in the cache; appends theirs. Never recorded.
  Tensor forward(const Tensor& x, const Tensor& rope, KvCache& cache) const;
  // One token of each text, x (1, B, C) to (1, B, C), wherever in the cache its text ends; stores theirs. Never recorded.
  Tensor decode(const Tensor& x, const DecodePlaces& places, const KvCache& cache) const;
  KvCache make_cache(int64_t batch, int64_t capacity) const;

 private:
  Tensor project(const Tensor& x, const Tensor& rope, int64_t first) const;  // (B, T, (H + 2 Hkv) D)
  // Queries of qkv (B, T, H + 2 Hkv, D) over keys and values (B, S, 2 Hkv, D).
  Tensor attend(const Tensor& qkv, const Tensor& kv, const AttentionOptions& options) const;  // (B, T, H, D)

  Options options_;
  int64_t heads_, kv_heads_;  // this rank's
  ColumnLinear qkv_;
  RowLinear out_;
  Parameter q_gain_, k_gain_;
};

}  // namespace heddle
