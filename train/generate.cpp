#include "train/generate.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>
#include <string>

#include "kernels/api/check.h"
#include "kernels/api/philox.h"
#include "kernels/api/printable.h"
#include "train/model.h"
#include "train/sampling.h"

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

int generate(const GenerateOptions& options) {
  options.validate();
  use_threads(options.threads);
  const Device device = choose_device(options.device);
  const TrainedModel trained = load_trained_model(options.path, device, compute_dtype(PrecisionChoice::automatic, device));
  const Tokenizer* tokenizer = trained.tokenizer ? &*trained.tokenizer : nullptr;
  std::vector<int32_t> prompt = options.prompt_tokens();
  if (!options.prompt.empty()) {
    if (!tokenizer) {
      fail("generate", concat(options.path, " has no tokenizer.json: give --prompt-ids, or put the tokenizer into the run directory"),
           ExitCode::usage);
    }
    prompt = tokenizer->encode_with_special(options.prompt);
  }
  if (tokenizer && (prompt.empty() || prompt[0] != tokenizer->eot())) prompt.insert(prompt.begin(), tokenizer->eot());  // documents begin with it
  // The model's vocabulary may be padded beyond the tokenizer's: what lies there was never trained and means nothing.
  const int64_t vocab = tokenizer ? tokenizer->vocab_size() : trained.model->config().vocab;
  for (int32_t id : prompt) {
    if (id < vocab) continue;
    fail("generate",
         concat("--prompt-ids: the ", tokenizer ? "tokenizer" : "model", " has no token ", id, ", but ", counted(vocab, "token"), ", 0 to ",
                vocab - 1),
         ExitCode::usage);
  }
  if (prompt.empty()) fail("generate", concat(options.path, " has no tokenizer.json to begin a document with: give --prompt-ids"), ExitCode::usage);
  if (!options.print_ids && !options.logprobs && !tokenizer) {
    fail("generate", concat(options.path, " has no tokenizer.json to print text with: use --print-ids"), ExitCode::usage);
  }
  if (!options.print_ids && !options.logprobs) std::fputs(options.prompt.c_str(), stdout);
  bool first = true;
  const SamplingOptions sampling{.greedy = options.greedy,
                                 .temperature = options.temperature,
                                 .top_k = options.top_k,
                                 .top_p = options.top_p,
                                 .seed = static_cast<uint64_t>(options.seed),
                                 .vocab = tokenizer ? tokenizer->vocab_size() : 0};
  generate_tokens(*trained.model, prompt, options.max_new_tokens, sampling, [&](int32_t token, std::span<const double> logits) {
    if (options.logprobs) {
      std::printf("%d\t%.6f\t%s\n", token, log_probability(logits, token), tokenizer ? quote_text(tokenizer->text_of(token)).c_str() : "");
    } else if (options.print_ids) {
      std::printf("%s%d", first ? "" : ",", token);
    } else if (tokenizer && token != tokenizer->eot()) {
      const std::string_view piece = tokenizer->bytes_of(token);
      std::fwrite(piece.data(), 1, piece.size(), stdout);
      std::fflush(stdout);
    }
    first = false;
    return !(tokenizer && token == tokenizer->eot());
  });
  if (!options.logprobs) std::puts("");
  return 0;
}

}  // namespace heddle
