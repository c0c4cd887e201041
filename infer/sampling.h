// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "models/transformer.h"

namespace heddle {

struct SamplingOptions {
  bool greedy = false;
  double temperature = 1;
  int64_t top_k = 0;
  double top_p = 1;
  uint64_t seed = 0;
  int64_t vocab = 0;  // ids from here on pad the model's vocabulary and mean nothing: never chosen; 0: none do
};

// The tokens for `position`, on the logits' device: argmax when greedy (or temperature 0), else drawn by Philox (seed, sample, position) as
// kernels/api/sample.h says, which also tells what stands for a row whose logits are not finite. Equal inputs give equal tokens.
Tensor sample_tokens(const Tensor& logits, const SamplingOptions& options, int64_t position);  // (B, V) -> (B) i32
// A token read from there, drawn from logits (V). Where a logit is not finite an Error that names the first.
int32_t checked_token(int32_t token, const Tensor& logits);

// log softmax(logits)[token], nats.
double log_probability(std::span<const double> logits, int32_t token);

// Continues `prompt` (not empty) by up to max_new tokens, calling `emit` with each and the logits it was drawn from, (1, V), which stay where they
// are; emit returns false to stop. When the context is full the window slides: the model starts anew on the last half of it.
void generate_tokens(const Transformer& model, std::span<const int32_t> prompt, int64_t max_new, const SamplingOptions& options,
                     const std::function<bool(int32_t token, const Tensor& logits)>& emit);

}  // namespace heddle
