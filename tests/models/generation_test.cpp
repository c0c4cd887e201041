// Generation with a KV cache: logits token by token are those of the whole sequence at once.
#include <algorithm>

#include "core/autograd/node.h"
#include "kernels/api/check.h"
#include "tests/models/support.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;

// Logits (B, T, V) of a whole pass.
std::vector<double> all_logits(const Transformer& model, const Tensor& tokens) {
  NoGradGuard no_grad;
  return linear(model.hidden(tokens), model.head()).to_vector();
}

DEVICE_TEST_CASE("logits from the cache equal a full forward pass, however the prompt is cut") {
  const auto style = GENERATE(from_range(test::styles()));
  const DType dtype = GENERATE(DType::f64, DType::f32);
  const auto cuts = GENERATE(values<std::vector<int64_t>>({{1, 1, 1, 1, 1, 1, 1, 1}, {8}, {3, 1, 2, 1, 1}, {7, 1}}));
  CAPTURE(style.name, name_of(dtype), cuts);
  constexpr int64_t b = 2, t = 8;
  const Transformer model(style.config);
  const Arena arena(model, test::device(), dtype);
  test::randomize(arena);
  const int64_t vocab = model.config().vocab;
  const Tensor tokens = test::random_tokens(b, t, vocab, 1);
  const std::vector<double> want = all_logits(model, tokens);
  // Both passes add the same terms in different orders. A logit is behind at most n additions: per layer two products of C and F terms, scores of
  // D, T values, and a head of C; every order's error is at most gamma_n times the sum of magnitudes it went through. Residual branches of
  // weights N(0, 0.4) grow magnitudes by less than 2 C per layer against the largest logit: kAmplification.
  const TransformerConfig& c = model.config();
  const double n = static_cast<double>(c.layers * (2 * c.dim + c.mlp_dim + 3 * c.head_dim + t) + c.dim);
  const double kAmplification = 2 * static_cast<double>(c.dim * c.layers);
  double largest = 1;
  for (double v : want) largest = std::max(largest, std::abs(v));
  const double allowed = kAmplification * test::gamma(n, dtype) * largest;

  Transformer::Cache cache = model.make_cache(b, t);
  const std::vector<double> ids = tokens.to_vector();
  int64_t at = 0;
  for (int64_t length : cuts) {
    std::vector<int32_t> piece;  // (B, length)
    for (int64_t row = 0; row < b; ++row) {
      for (int64_t i = 0; i < length; ++i) piece.push_back(static_cast<int32_t>(ids[static_cast<size_t>(row * t + at + i)]));
    }
    const std::vector<double> got = model.next_logits(test::ints(piece, {b, length}), cache).to_vector();
    at += length;
    CHECK(cache.length() == at);
    double worst = 0;
    for (int64_t row = 0; row < b; ++row) {
      for (int64_t v = 0; v < vocab; ++v) {
        worst = std::max(worst, std::abs(got[static_cast<size_t>(row * vocab + v)] - want[static_cast<size_t>((row * t + at - 1) * vocab + v)]));
      }
    }
    CHECK(worst <= allowed);
  }
}

// Texts of lengths of their own in one cache: each has the logits that it has in a cache of its own.
DEVICE_TEST_CASE("a decoding step's logits are those of each text by itself, wherever it ends") {
  for (const test::Style& style : test::styles()) {
    CAPTURE(style.name);
    const Transformer model(style.config);
    const Arena arena(model, test::device(), DType::f32);
    test::randomize(arena);
    const int64_t seq = model.config().seq, vocab = model.config().vocab;
    Transformer::Cache together = model.make_cache(4, seq);
    std::vector<int32_t> tokens, position, row;
    std::vector<double> want;
    for (int64_t text = 0; text < 4; ++text) {
      const int64_t length = text == 3 ? seq - 1 : 1 + 2 * text;
      const Tensor prompt = test::random_tokens(1, length, vocab, static_cast<uint32_t>(text + 1));
      Transformer::Cache part = together.of_text(text), own = model.make_cache(1, seq);
      CHECK(model.next_logits(prompt, part).to_vector() == model.next_logits(prompt, own).to_vector());
      tokens.push_back(static_cast<int32_t>(text % vocab));
      position.push_back(static_cast<int32_t>(length));
      row.push_back(static_cast<int32_t>(text * seq + length));
      for (const double v : model.next_logits(test::ints({tokens.back()}, {1, 1}), own).to_vector()) want.push_back(v);
    }
    const std::vector<double> got =
        model.decode_logits(test::ints(tokens, {4}), test::ints(position, {4}), test::ints(row, {4}), together).to_vector();
    REQUIRE(got.size() == want.size());
    double largest = 1, worst = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      largest = std::max(largest, std::abs(want[i]));
      worst = std::max(worst, std::abs(got[i] - want[i]));
    }
    // As above: the same terms in another order.
    const TransformerConfig& c = model.config();
    const double n = static_cast<double>(c.layers * (2 * c.dim + c.mlp_dim + 3 * c.head_dim + seq) + c.dim);
    CHECK(worst <= 2 * static_cast<double>(c.dim * c.layers) * test::gamma(n, DType::f32) * largest);
    CHECK_THROWS_WITH(model.decode_logits(test::ints({1}, {1}), test::ints({0}, {1}), test::ints({0}, {1}), together), Contains("a KV cache of 4"));
  }
}

DEVICE_TEST_CASE("generation records nothing and leaves gradients alone") {
  const Transformer model(test::gpt2_style());
  const Arena arena(model, test::device(), DType::f32);
  test::randomize(arena);
  Transformer::Cache cache = model.make_cache(1, 4);
  CHECK_FALSE(model.next_logits(test::ints({1, 2}, {1, 2}), cache).requires_grad());
  CHECK(grad_enabled());
}

DEVICE_TEST_CASE("a cache or a context that is too small is an error with its sizes") {
  const Transformer model(test::gpt2_style());
  const Arena arena(model, test::device(), DType::f32);
  Transformer::Cache cache = model.make_cache(1, 3);
  CHECK_THROWS_WITH(model.next_logits(test::random_tokens(1, 4, 7, 1), cache), Contains("holds 3") && Contains("4 are needed"));
  CHECK_THROWS_WITH(model.make_cache(1, 9), Contains("context of 9") && Contains("built for 8"));
  Transformer::Cache full = model.make_cache(1, 8);
  CHECK_THROWS_WITH(model.next_logits(test::random_tokens(1, 9, 7, 1), full), Contains("9 tokens"));
  CHECK_THROWS_WITH(model.hidden(test::random_tokens(1, 9, 7, 1)), Contains("(1, 9)"));
}

}  // namespace
}  // namespace heddle
