// Generation past the context, on every device; the draws themselves are tested in tests/kernels/sample_test.cpp.
#include "infer/generate.h"

#include <algorithm>
#include <cmath>

#include "core/autograd/node.h"
#include "tests/models/support.h"
#include "tests/support/devices.h"
#include "tests/train/expect_error.h"

namespace heddle {
namespace {

TEST_CASE("generation: log-probabilities are those of the softmax and sum to one") {
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
          int64_t made = 0;
          generate_tokens(model, prompt, 25, o, [&](int32_t token, const Tensor& drawn_from) {
            const std::vector<double> logits = drawn_from.to_vector();
            if (text.size() - begin > static_cast<size_t>(context)) begin = text.size() - static_cast<size_t>((context + 1) / 2);
            const std::vector<double> want = fresh_logits(model, std::span(text).subspan(begin));
            REQUIRE(logits.size() == want.size());
            double largest = 1, worst = 0;
            for (size_t v = 0; v < want.size(); ++v) {
              largest = std::max(largest, std::abs(want[v]));
              worst = std::max(worst, std::abs(logits[v] - want[v]));
            }
            CHECK(worst <= 1e-12 * largest);  // f64, a few hundred additions in another order (RoPE's table is f32 on both sides)
            CHECK(token == sample_tokens(Tensor::from(want, {1, model.config().vocab}, DType::f64), o, made).item());
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

// On a GPU the logits are drawn from where they are: the token is the one that the CPU draws from the same bits.
DEVICE_TEST_CASE("generation: a device's token is the CPU's of its logits; past the context too") {
  for (TransformerConfig config : {test::gpt2_style(), test::llama_style()}) {
    config.seq = 6;
    const Transformer model(config);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const Arena arena(model, test::device(), dtype);
      test::randomize(arena);
      for (const SamplingOptions& o : {SamplingOptions{.greedy = true, .vocab = 6}, SamplingOptions{.temperature = 1.5, .top_k = 5, .seed = 9},
                                       SamplingOptions{.top_p = 0.8, .seed = 4, .vocab = 6}}) {
        int64_t made = 0;
        generate_tokens(model, std::vector<int32_t>{1, 5, 2}, 9, o, [&](int32_t token, const Tensor& logits) {
          CHECK(logits.device() == test::device());
          const Tensor copy = Tensor::from(logits.to_vector(), logits.shape(), logits.dtype());
          CHECK(token == sample_tokens(copy, o, made++).item());
          return true;
        });
        CHECK(made == 9);
      }
    }
  }
}

DEVICE_TEST_CASE("generation: logits that are not finite end it with the first token they belong to") {
  const Transformer model(test::gpt2_style());
  const Arena arena(model, test::device(), DType::f32);
  test::randomize(arena);
  const Tensor head = model.head().tensor();
  std::vector<double> values = head.to_vector();
  values[static_cast<size_t>(4 * model.config().dim)] = std::nan("");
  test::write(head, values);
  int64_t made = 0;
  expect_error([&] { generate_tokens(model, std::vector<int32_t>{1}, 3, {}, [&](int32_t, const Tensor&) { return ++made > 0; }); }, ExitCode::runtime,
               {"token 4 is nan", "diverged"});
  CHECK(made == 0);
}

TEST_CASE("generation: stops when told to, after as many tokens as asked for, and refuses an empty prompt") {
  kernels::register_cpu_kernels();
  const Transformer model(test::gpt2_style());
  const Arena arena(model, Device{}, DType::f32);
  test::randomize(arena);
  const std::vector<int32_t> prompt = {1, 2};
  for (const int64_t most : {0, 1, 12}) {
    int64_t made = 0;
    generate_tokens(model, prompt, most, {}, [&](int32_t, const Tensor&) { return ++made < 5; });
    CHECK(made == std::min<int64_t>(most, 5));
  }
  expect_error([&] { generate_tokens(model, {}, 1, {}, [](int32_t, const Tensor&) { return true; }); }, ExitCode::runtime, {"empty prompt"});
}

}  // namespace
}  // namespace heddle
