// Which token comes next: choose_token against the inverse of the distribution function, its frequencies, and generation past the context.
#include "infer/sampling.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <set>

#include "core/autograd/node.h"
#include "kernels/api/philox.h"
#include "tests/models/support.h"
#include "tests/train/expect_error.h"

namespace heddle {
namespace {

std::vector<double> random_logits(size_t size, uint64_t seed, double spread) {
  std::vector<double> logits(size);
  const RngKey key{.seed = seed, .purpose = RngPurpose::test, .name = 7};
  for (size_t i = 0; i < size; ++i) {
    const Philox::Block words = Philox::draw(key, i);
    logits[i] = spread * static_cast<double>(Philox::normal(words[0], words[1])[0]);
  }
  return logits;
}

// What may be drawn and how likely each is, the most likely first: the definition, in long double and without shortcuts.
struct Choice {
  int32_t id;
  long double probability;
};
std::vector<Choice> distribution(std::span<const double> logits, const SamplingOptions& o) {
  const size_t known = o.vocab > 0 ? static_cast<size_t>(o.vocab) : logits.size();
  std::vector<Choice> all;
  for (size_t i = 0; i < known; ++i) all.push_back({static_cast<int32_t>(i), std::exp(static_cast<long double>(logits[i]) / o.temperature)});
  std::stable_sort(all.begin(), all.end(), [](const Choice& a, const Choice& b) { return a.probability > b.probability; });
  const auto normalise = [&] {
    long double sum = 0;
    for (const Choice& c : all) sum += c.probability;
    for (Choice& c : all) c.probability /= sum;
  };
  if (o.top_k > 0 && static_cast<size_t>(o.top_k) < all.size()) all.resize(static_cast<size_t>(o.top_k));
  normalise();
  long double sum = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    if ((sum += all[i].probability) >= o.top_p) all.resize(i + 1);
  }
  normalise();
  return all;
}

int32_t by_definition(std::span<const double> logits, const SamplingOptions& o, uint64_t position) {
  const RngKey key{.seed = o.seed, .purpose = RngPurpose::sample, .name = 0, .stream = position};
  const long double target = Philox::uniform(Philox::draw(key, 0)[0]);
  const std::vector<Choice> choices = distribution(logits, o);
  long double passed = 0;
  for (const Choice& c : choices) {
    if (target < (passed += c.probability)) return c.id;
  }
  return choices.back().id;
}

TEST_CASE("sampling: every draw is the inverse of the distribution function at the draw of its position") {
  int checked = 0;
  for (const double temperature : {0.5, 1.0, 1.7}) {
    for (const int64_t top_k : {0, 1, 5, 99}) {
      for (const double top_p : {1.0, 0.7, 0.05}) {
        for (const int64_t vocab : {0, 24}) {
          const SamplingOptions o{.temperature = temperature, .top_k = top_k, .top_p = top_p, .seed = 11, .vocab = vocab};
          for (uint64_t position = 0; position < 40; ++position) {
            const std::vector<double> logits = random_logits(30, position % 4, 2);
            CAPTURE(temperature, top_k, top_p, vocab, position);
            REQUIRE(choose_token(logits, o, position) == by_definition(logits, o, position));
            ++checked;
          }
        }
      }
    }
  }
  CHECK(checked == 3 * 4 * 3 * 2 * 40);
}

TEST_CASE("sampling: another seed draws another text, the same seed the same") {
  const std::vector<double> flat(64, 0.5);
  const auto text = [&](uint64_t seed) {
    std::vector<int32_t> ids;
    for (uint64_t position = 0; position < 16; ++position) ids.push_back(choose_token(flat, {.seed = seed}, position));
    return ids;
  };
  CHECK(text(1) == text(1));
  CHECK(text(1) != text(2));
  const std::vector<int32_t> once = text(1);
  CHECK(std::set<int32_t>(once.begin(), once.end()).size() > 8);  // of 64 at 16 positions; one would mean one draw for all
}

TEST_CASE("sampling: frequencies are those of the softmax at that temperature, cut by top-k and top-p") {
  const std::vector<double> logits = {1.0, -0.5, 0.25, 2.0, 0.0, -3.0, 1.5, 1.5};
  constexpr int kDraws = 20000;
  for (const SamplingOptions& o : {SamplingOptions{.seed = 3}, SamplingOptions{.temperature = 2.5, .seed = 4}, SamplingOptions{.top_k = 3, .seed = 5},
                                   SamplingOptions{.temperature = 0.6, .top_p = 0.8, .seed = 6}, SamplingOptions{.seed = 7, .vocab = 5}}) {
    std::vector<int> counts(logits.size());
    for (int i = 0; i < kDraws; ++i) ++counts[static_cast<size_t>(choose_token(logits, o, static_cast<uint64_t>(i)))];
    std::vector<double> expected(logits.size());
    for (const Choice& c : distribution(logits, o)) expected[static_cast<size_t>(c.id)] = static_cast<double>(c.probability);
    for (size_t id = 0; id < logits.size(); ++id) {
      CAPTURE(o.temperature, o.top_k, o.top_p, id, counts[id], expected[id] * kDraws);
      // A count is binomial: beyond six standard deviations once in 10^9.
      const double deviation = std::sqrt(kDraws * expected[id] * (1 - expected[id]));
      CHECK(std::abs(counts[id] - kDraws * expected[id]) <= 6 * deviation);  // never, where the probability is 0
    }
  }
}

TEST_CASE("sampling: greedy, temperature 0, top-k 1 and a small top-p take the most likely token, the first of equals") {
  const std::vector<double> logits = {0.5, 3.0, -1.0, 3.0, 2.5};
  for (const SamplingOptions& o : {SamplingOptions{.greedy = true}, SamplingOptions{.temperature = 0}, SamplingOptions{.top_k = 1},
                                   SamplingOptions{.temperature = 9, .top_p = 1e-9}}) {
    for (uint64_t position = 0; position < 50; ++position) CHECK(choose_token(logits, o, position) == 1);
  }
  // Of equals at the edge of top-k the first are in.
  const std::vector<double> equal(6, 1.0);
  std::set<int32_t> seen;
  for (uint64_t position = 0; position < 200; ++position) seen.insert(choose_token(equal, {.top_k = 2}, position));
  CHECK(seen == std::set<int32_t>{0, 1});
}

TEST_CASE("sampling: ids that pad the vocabulary are never chosen, however likely the model finds them") {
  std::vector<double> logits = random_logits(40, 1, 1);
  for (size_t id = 30; id < logits.size(); ++id) logits[id] = 50;
  for (const SamplingOptions& o : {SamplingOptions{.greedy = true, .vocab = 30}, SamplingOptions{.temperature = 0, .vocab = 30},
                                   SamplingOptions{.top_k = 35, .vocab = 30}, SamplingOptions{.temperature = 1e3, .top_p = 0.9, .vocab = 30}}) {
    for (uint64_t position = 0; position < 100; ++position) CHECK(choose_token(logits, o, position) < 30);
  }
  CHECK(choose_token(logits, {.greedy = true}, 0) == 30);
  CHECK(choose_token(logits, {.greedy = true, .vocab = 99}, 0) == 30);  // a vocabulary smaller than the tokenizer's has no padding
}

TEST_CASE("sampling: a logit that is not finite, wherever it stands, is an error that names its token") {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  for (const double bad : {std::nan(""), kInfinity, -kInfinity}) {
    for (const size_t id : {0, 1, 17, 30, 39}) {
      std::vector<double> logits = random_logits(40, 2, 1);
      logits[id] = bad;
      for (const SamplingOptions& o :
           {SamplingOptions{}, SamplingOptions{.greedy = true}, SamplingOptions{.top_k = 3}, SamplingOptions{.top_p = 0.5, .vocab = 30}}) {
        expect_error([&] { choose_token(logits, o, 0); }, ExitCode::runtime, {concat("token ", id), "diverged"});
      }
    }
  }
}

TEST_CASE("sampling: log-probabilities are those of the softmax and sum to one") {
  const std::vector<double> logits = {900.0, 901.5, 898.0, 899.25};
  long double sum = 0, total = 0;
  for (const double z : logits) sum += std::exp(static_cast<long double>(z) - 900);
  for (int32_t id = 0; id < 4; ++id) {
    const double want = static_cast<double>(static_cast<long double>(logits[static_cast<size_t>(id)]) - 900 - std::log(sum));
    CHECK(std::abs(log_probability(logits, id) - want) <= 1e-12);  // a few roundings of numbers below 1000
    total += std::exp(static_cast<long double>(log_probability(logits, id)));
  }
  CHECK(std::abs(static_cast<double>(total) - 1) <= 1e-12);
}

// The model without a cache: what the last of `text` predicts.
std::vector<double> fresh_logits(const Transformer& model, std::span<const int32_t> text) {
  NoGradGuard no_grad;
  const Tensor tokens = test::ints({text.begin(), text.end()}, {1, static_cast<int64_t>(text.size())});
  const std::vector<double> all = linear(model.hidden(tokens), model.head()).to_vector();  // (1, T, V)
  return {all.end() - model.config().vocab, all.end()};
}

TEST_CASE("generation: within the context and past it, every logit is an uncached model's on the window") {
  kernels::register_cpu_kernels();
  for (const int64_t context : {8, 7, 1}) {
    for (TransformerConfig config : {test::gpt2_style(), test::llama_style()}) {
      config.seq = context;
      const Transformer model(config);
      const Arena arena(model, Device{}, DType::f64);
      test::randomize(arena);
      for (const size_t length : {1, 3, 7, 8, 9, 20}) {
        for (const SamplingOptions& o : {SamplingOptions{.greedy = true}, SamplingOptions{.temperature = 1.5, .seed = 9, .vocab = 6}}) {
          CAPTURE(context, length, o.greedy, static_cast<int>(config.position));
          std::vector<int32_t> text;
          for (size_t i = 0; i < length; ++i) text.push_back(static_cast<int32_t>((i * i + 3) % 7));
          const std::vector<int32_t> prompt = text;
          // The window holds all text until it is full; then it starts anew on the last half of the context, rounded up.
          size_t begin = length > static_cast<size_t>(context) ? length - static_cast<size_t>(context) : 0;
          uint64_t made = 0;
          generate_tokens(model, prompt, 25, o, [&](int32_t token, std::span<const double> logits) {
            if (text.size() - begin > static_cast<size_t>(context)) begin = text.size() - static_cast<size_t>((context + 1) / 2);
            const std::vector<double> want = fresh_logits(model, std::span(text).subspan(begin));
            REQUIRE(logits.size() == want.size());
            double largest = 1, worst = 0;
            for (size_t v = 0; v < want.size(); ++v) {
              largest = std::max(largest, std::abs(want[v]));
              worst = std::max(worst, std::abs(logits[v] - want[v]));
            }
            CHECK(worst <= 1e-12 * largest);  // f64, a few hundred additions in another order (RoPE's table is f32 on both sides)
            CHECK(token == choose_token(want, o, made));
            ++made;
            text.push_back(token);
            return true;
          });
          CHECK(made == 25);
        }
      }
    }
  }
}

TEST_CASE("generation: stops when told to, after as many tokens as asked for, and refuses an empty prompt") {
  kernels::register_cpu_kernels();
  const Transformer model(test::gpt2_style());
  const Arena arena(model, Device{}, DType::f32);
  test::randomize(arena);
  const std::vector<int32_t> prompt = {1, 2};
  for (const int64_t most : {0, 1, 12}) {
    int64_t made = 0;
    generate_tokens(model, prompt, most, {}, [&](int32_t, std::span<const double>) { return ++made < 5; });
    CHECK(made == std::min<int64_t>(most, 5));
  }
  expect_error([&] { generate_tokens(model, {}, 1, {}, [](int32_t, std::span<const double>) { return true; }); }, ExitCode::runtime,
               {"empty prompt"});
}

}  // namespace
}  // namespace heddle
