// Choosing the next token from logits.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

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

// The token for `position`: argmax when greedy (or temperature 0), else drawn by Philox (seed, sample, position) from softmax(logits / temperature),
// cut to the top_k most likely and of those to the smallest set that sums to top_p (Holtzman et al. 2020). Equal inputs give equal tokens. A logit
// that is not finite is an Error naming its token.
int32_t choose_token(std::span<const double> logits, const SamplingOptions& options, uint64_t position);

// log softmax(logits)[token], nats.
double log_probability(std::span<const double> logits, int32_t token);

// Continues `prompt` (not empty) by up to max_new tokens, calling `emit` with each and its logits; emit returns false to stop. When the context
// is full the window slides: the model starts anew on the last half of it.
void generate_tokens(const Transformer& model, std::span<const int32_t> prompt, int64_t max_new, const SamplingOptions& options,
                     const std::function<bool(int32_t token, std::span<const double> logits)>& emit);

}  // namespace heddle
