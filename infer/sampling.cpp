#include "infer/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "core/launch.h"
#include "kernels/api/check.h"
#include "kernels/api/sample.h"

namespace heddle {

void sample_tokens(const Tensor& logits, const SamplingOptions& options, const Tensor& draw, const Tensor& text, const Tensor& tokens) {
  launch(kernels::sample,
         {.logits = logits.view(),
          .draw = draw.view(),
          .text = text.view(),
          .tokens = tokens.view(),
          .temperature = options.greedy ? 0 : std::max(options.temperature, 0.0),
          .top_k = options.top_k,
          .top_p = options.top_p,
          .vocab = options.vocab,
          .key = {.seed = options.seed, .purpose = RngPurpose::sample}},
         logits.device());
}

Tensor sample_tokens(const Tensor& logits, const SamplingOptions& options, int64_t draw) {
  HEDDLE_CHECK(draw >= 0 && draw <= std::numeric_limits<int32_t>::max(), "generate", "token ", draw, " of one text");
  const int64_t rows = logits.size(0);
  const Device device = logits.device();
  std::vector<int32_t> texts(static_cast<size_t>(rows));
  std::iota(texts.begin(), texts.end(), 0);
  Tensor tokens = Tensor::empty({rows}, DType::i32, device);
  sample_tokens(logits, options, Tensor::from(std::vector<int32_t>(texts.size(), static_cast<int32_t>(draw)), {rows}, device),
                Tensor::from(texts, {rows}, device), tokens);
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

}  // namespace heddle
