// One decoder-only Transformer that is GPT-2, Llama or Qwen by configuration.
//
//   h = embedding(tokens) [+ learned positions]
//   for each block:  h = h + attention(norm(h));  h = h + mlp(norm(h))                              (pre-norm residuals)
//   loss = cross entropy of head(norm(h)), head tied to the embedding or its own
//
// The additions are the norms': a layer hands on the stream and the branch that is still to be added to it.
// Parts are named tok.weight, pos.weight, blocks.<i>.{norm1,attn,norm2,mlp}.*, norm.*, head.weight.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/nn/layers.h"
#include "models/config.h"
#include "parallel/attention.h"
#include "parallel/mlp.h"
#include "parallel/vocab_parallel.h"

namespace heddle {

// What passes from block to block: stream + branch, which the next norm adds.
struct Residual {
  Tensor stream;  // (B, T, C)
  Tensor branch;  // (B, T, C), or undefined: nothing to add

  Tensor added() const { return branch ? add(stream, branch) : stream; }
};

class Block final : public Module {
 public:
  Block(const TransformerConfig& config, const MeshShape& mesh);
  Residual forward(const Residual& h, const Tensor& rope, const Tensor& document_start) const;
  Residual forward(const Residual& h, const Tensor& rope, KvCache& cache) const;
  Residual decode(const Residual& h, const DecodePlaces& places, const KvCache& cache) const;
  KvCache make_cache(int64_t batch, int64_t capacity) const { return attn_.make_cache(batch, capacity); }

 private:
  template <class Attend>
  Residual around(const Residual& h, const Attend& attend) const;

  Norm norm1_;
  CausalSelfAttention attn_;
  Norm norm2_;
  Mlp mlp_;
};

class Transformer final : public Module {
 public:
  // The piece of the model that a rank of the mesh holds.
  explicit Transformer(const TransformerConfig& config, const MeshShape& mesh = {});

  // Tokens (B, T) i32, document_start (B, T) i32 or undefined, to the normalised last hidden state (B, T, C).
  Tensor hidden(const Tensor& tokens, const Tensor& document_start = {}) const;
  // scale times the sum of the cross entropy of targets (B, T) i32.
  Tensor loss(const Tensor& tokens, const Tensor& targets, const Tensor& document_start, const LossOptions& options) const;  // ()
  // The negative log likelihood of every target, in nats; 0 where ignored.
  Tensor token_losses(const Tensor& tokens, const Tensor& targets, const Tensor& document_start) const;  // (B T)

  struct Cache {
    std::vector<KvCache> layers;
    int64_t length() const { return layers.empty() ? 0 : layers[0].length; }
    Cache of_text(int64_t text) const;  // its part of the same memory, empty
  };
  Cache make_cache(int64_t batch, int64_t capacity) const;
  // Logits of the last of the given tokens, which follow those in the cache: tokens (B, T) to (B, V).
  Tensor next_logits(const Tensor& tokens, Cache& cache) const;
  // The next token of each text, tokens (B) i32 to (B, V), where each stands at a position (B) i32 of its own in the cache; row as DecodePlaces says.
  // Queues the same kernels with the same addresses each time: a step that can be recorded.
  Tensor decode_logits(const Tensor& tokens, const Tensor& position, const Tensor& row, const Cache& cache) const;

  const TransformerConfig& config() const { return config_; }
  const Parameter& head() const { return head_.weight(); }

 private:
  Tensor rope_table_on(Device device) const;

  TransformerConfig config_;
  VocabParallelEmbedding tok_;
  Parameter pos_;
  std::vector<std::unique_ptr<Block>> blocks_;
  Norm norm_;
  VocabParallelHead head_;
  mutable Tensor rope_;  // (seq, D), made at the first use
};

}  // namespace heddle
