#include "infer/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "core/launch.h"
#include "kernels/api/check.h"
#include "kernels/api/sample.h"

namespace heddle {

Tensor sample_tokens(const Tensor& logits, const SamplingOptions& options, int64_t position) {
  HEDDLE_CHECK(position >= 0 && position <= std::numeric_limits<int32_t>::max(), "generate", "token ", position, " of one text");
  const Device device = logits.device();
  const Tensor at = Tensor::from(std::vector<int32_t>{static_cast<int32_t>(position)}, {1}, device);
  Tensor tokens = Tensor::empty({logits.size(0)}, DType::i32, device);  // (B)
  launch(kernels::sample,
         {.logits = logits.view(),
          .position = at.view(),
          .tokens = tokens.view(),
          .temperature = options.greedy ? 0 : std::max(options.temperature, 0.0),
          .top_k = options.top_k,
          .top_p = options.top_p,
          .vocab = options.vocab,
          .key = {.seed = options.seed, .purpose = RngPurpose::sample}},
         device);
  return tokens;
}

int32_t checked_token(int32_t token, const Tensor& logits) {
  if (token >= 0) return token;
  const int64_t id = -1 - int64_t{token};
  const double logit = slice(logits, logits.rank() - 1, id, id + 1).item();
  fail("generate", concat("the model's logit of token ", id, " is ", logit, ": its training diverged; use an earlier checkpoint"));
}

double log_probability(std::span<const double> logits, int32_t token) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double z : logits) sum += std::exp(z - most);
  return logits[static_cast<size_t>(token)] - most - std::log(sum);
}

void generate_tokens(const Transformer& model, std::span<const int32_t> prompt, int64_t max_new, const SamplingOptions& options,
                     const std::function<bool(int32_t, const Tensor&)>& emit) {
  HEDDLE_CHECK(!prompt.empty(), "generate", "an empty prompt");
  const Device device = model.head().tensor().device();
  const int64_t capacity = model.config().seq;
  std::vector<int32_t> text(prompt.begin(), prompt.end());
  Transformer::Cache cache = model.make_cache(1, capacity);
  size_t fed =
      text.size() > static_cast<size_t>(capacity) ? text.size() - static_cast<size_t>(capacity) : 0;  // tokens before `fed` are in the cache or gone
  Tensor last;                                                                                        // the text's last token, where it was drawn
  for (int64_t i = 0; i < max_new; ++i) {
    if (cache.length() + static_cast<int64_t>(text.size() - fed) > capacity) {
      for (KvCache& layer : cache.layers) layer.length = 0;
      fed = text.size() - static_cast<size_t>((capacity + 1) / 2);
    }
    const std::span<const int32_t> chunk(text.data() + fed, text.size() - fed);
    const Tensor tokens = last && chunk.size() == 1 ? last : Tensor::from(chunk, {1, static_cast<int64_t>(chunk.size())}, device);  // (1, T)
    const Tensor logits = model.next_logits(tokens, cache);                                                                         // (1, V)
    fed = text.size();
    const Tensor drawn = sample_tokens(logits, options, i);  // (1)
    last = reshape(drawn, {1, 1});
    const int32_t token = checked_token(static_cast<int32_t>(drawn.item()), logits);
    text.push_back(token);
    if (!emit(token, logits)) return;
  }
}

}  // namespace heddle
