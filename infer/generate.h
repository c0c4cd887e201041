// Continuing texts with a trained model.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "infer/sampling.h"
#include "models/transformer.h"

namespace heddle {

struct GenerationOptions {
  SamplingOptions sampling;
  int64_t batch = 8;                             // texts at a time, at most: each has its part of a KV cache of the model's whole context
  bool graphs = true;                            // on cuda a token's step is recorded and launched as a graph
  std::function<void(const std::string&)> tell;  // hears, in a line, why a step could not be recorded
};

// Continues each prompt (not empty) by up to max_new tokens, calling `emit` with each and the logits it was drawn from, (1, V), which stay where they
// are and are good until it returns; emit returns false to end that text. Texts are continued together, and the next prompt takes the place of a text
// that has ended. Text i is what generate_tokens gives for its prompt alone and seed + i, up to the rounding of products of another size. A text that
// fills the context goes on with the last half of it, read anew.
void generate_texts(const Transformer& model, std::span<const std::vector<int32_t>> prompts, int64_t max_new, const GenerationOptions& options,
                    const std::function<bool(size_t text, int32_t token, const Tensor& logits)>& emit);

// One text, without graphs.
void generate_tokens(const Transformer& model, std::span<const int32_t> prompt, int64_t max_new, const SamplingOptions& options,
                     const std::function<bool(int32_t token, const Tensor& logits)>& emit);

}  // namespace heddle
