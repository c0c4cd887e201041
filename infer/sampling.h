// Choosing the next token from logits.
#pragma once

#include <cstdint>
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

// A token for each row of logits (B, V), on their device, written to tokens (B) i32: the draw[b]-th of text[b], both (B) i32. argmax when greedy (or
// temperature 0), else drawn by Philox (seed + text, sample, draw) as kernels/api/sample.h says, which also tells what stands for a row whose logits
// are not finite. Equal inputs give equal tokens, whatever else is drawn with them.
void sample_tokens(const Tensor& logits, const SamplingOptions& options, const Tensor& draw, const Tensor& text, const Tensor& tokens);
// The same where row b is the `draw`-th token of text b.
Tensor sample_tokens(const Tensor& logits, const SamplingOptions& options, int64_t draw);  // (B)
// A token read from there, drawn from logits (V). Where a logit is not finite an Error that names the first.
int32_t checked_token(int32_t token, const Tensor& logits);

// log softmax(logits)[token], nats.
double log_probability(std::span<const double> logits, int32_t token);

}  // namespace heddle
