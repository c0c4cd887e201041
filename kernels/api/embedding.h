// Token (and learned position) embedding.
//
//   tokens (B, T) i32; weight (V, C); position (P, C) may be absent; out (B, T, C) = weight[token] + position[t - start]
//   start (B, T) i32: index in the row of the first token of t's document; absent: 0
//   shard: which tokens the rows of weight are. One that another shard holds has a row of zeros here and gives no gradient, so that the sum over
//   the shards is the embedding; one outside the whole vocabulary is a Fault naming b, t and value, as is a position
//   outside [0, P); what is written then is of no use.
// Backward: d_weight (V, C) and d_position (P, C) through Sinks, f32 or the dtype of d_out; rows are added in token order: deterministic.
// A Sink that does not accumulate is zeroed first (every row, also of tokens that do not occur).
#pragma once

#include <span>

#include "kernels/api/fault.h"
#include "kernels/api/kernel.h"
#include "kernels/api/types.h"
#include "kernels/api/vocab_shard.h"

namespace heddle::kernels {

struct EmbeddingForwardArgs {
  View tokens, weight, position, start;
  View out;
  VocabShard shard = {};
  Fault* fault = nullptr;
};

struct EmbeddingBackwardArgs {
  View tokens, start, d_out;
  Sink d_weight, d_position;
  std::span<std::byte> scratch;
  VocabShard shard = {};
  Fault* fault = nullptr;
};

// What in these arguments contradicts the above; nullopt: nothing.
Refusal contradiction(const EmbeddingForwardArgs&);
Refusal contradiction(const EmbeddingBackwardArgs&);

extern Kernel<EmbeddingForwardArgs> embedding_forward;
extern Kernel<EmbeddingBackwardArgs> embedding_backward;

}  // namespace heddle::kernels
