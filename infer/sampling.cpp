#include "infer/sampling.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>

#include "kernels/api/check.h"
#include "kernels/api/philox.h"

namespace heddle {

int32_t choose_token(std::span<const double> logits, const SamplingOptions& options, uint64_t position) {
  for (size_t id = 0; id < logits.size(); ++id) {  // a NaN compares with nothing: no order below would hold
    if (!std::isfinite(logits[id])) {
      fail("generate", concat("the model's logit of token ", id, " is ", logits[id], ": its training diverged; use an earlier checkpoint"));
    }
  }
  if (options.vocab > 0) logits = logits.first(std::min(logits.size(), static_cast<size_t>(options.vocab)));
  const auto best = static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  if (options.greedy || options.temperature <= 0) return best;
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto more_likely = [&](int32_t a, int32_t b) {  // ties by id, so the order is total
    return logits[static_cast<size_t>(a)] != logits[static_cast<size_t>(b)] ? logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)] : a < b;
  };
  size_t kept = order.size();
  if (options.top_k > 0) kept = std::min(kept, static_cast<size_t>(options.top_k));
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(kept), order.end(), more_likely);
  std::vector<double> weight(kept);
  double total = 0;
  for (size_t i = 0; i < kept; ++i) {
    const double z = (logits[static_cast<size_t>(order[i])] - logits[static_cast<size_t>(best)]) / options.temperature;
    total += weight[i] = std::exp(z);
  }
  double sum = 0;
  for (size_t i = 0; i < kept; ++i) {
    sum += weight[i];
    if (sum >= options.top_p * total) {
      kept = i + 1;
      break;
    }
  }
  const RngKey key{.seed = options.seed, .purpose = RngPurpose::sample, .name = 0, .stream = position};
  const double target = Philox::uniform(Philox::draw(key, 0)[0]) * sum;
  double passed = 0;
  for (size_t i = 0; i < kept; ++i) {
    passed += weight[i];
    if (target < passed) return order[i];
  }
  return order[kept - 1];
}

double log_probability(std::span<const double> logits, int32_t token) {
  const double most = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (double z : logits) sum += std::exp(z - most);
  return logits[static_cast<size_t>(token)] - most - std::log(sum);
}

void generate_tokens(const Transformer& model, std::span<const int32_t> prompt, int64_t max_new, const SamplingOptions& options,
                     const std::function<bool(int32_t, std::span<const double>)>& emit) {
  HEDDLE_CHECK(!prompt.empty(), "generate", "an empty prompt");
  const Device device = model.head().tensor().device();
  const int64_t capacity = model.config().seq;
  std::vector<int32_t> text(prompt.begin(), prompt.end());
  Transformer::Cache cache = model.make_cache(1, capacity);
  size_t fed =
      text.size() > static_cast<size_t>(capacity) ? text.size() - static_cast<size_t>(capacity) : 0;  // tokens before `fed` are in the cache or gone
  for (int64_t i = 0; i < max_new; ++i) {
    if (cache.length() + static_cast<int64_t>(text.size() - fed) > capacity) {
      for (KvCache& layer : cache.layers) layer.length = 0;
      fed = text.size() - static_cast<size_t>((capacity + 1) / 2);
    }
    const std::span<const int32_t> chunk(text.data() + fed, text.size() - fed);
    const Tensor tokens = Tensor::from(chunk, {1, static_cast<int64_t>(chunk.size())}, device);
    std::vector<double> logits = model.next_logits(tokens, cache).to_vector();  // (V)
    fed = text.size();
    const int32_t token = choose_token(logits, options, static_cast<uint64_t>(i));
    text.push_back(token);
    if (!emit(token, logits)) return;
  }
}

}  // namespace heddle
