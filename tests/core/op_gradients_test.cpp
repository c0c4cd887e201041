// Backward of every op against central differences in f64, with each optional input absent and present, each input wanted alone and together, and
// gradients written ("=") and added ("+="). Memory is full of NaN before anything writes it.
#include "core/autograd/engine.h"
#include "core/ops/ops.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

using test::ints;
using test::one;

Tensor input(Shape shape, uint64_t seed) {
  return test::random(shape, seed, 0, 1, DType::f64);
}
Tensor optional(bool present, Shape shape, uint64_t seed) {
  return present ? input(shape, seed) : Tensor();
}

DEVICE_TEST_CASE("gradients of matmul, all four storage orders") {
  const bool ta = GENERATE(false, true), tb = GENERATE(false, true);
  CAPTURE(ta, tb);
  CHECK_GRADIENTS(one([=](auto in) { return matmul(in[0], in[1], ta, tb); }), input(ta ? Shape{5, 3} : Shape{3, 5}, 1),
                  input(tb ? Shape{4, 5} : Shape{5, 4}, 2));
}

DEVICE_TEST_CASE("gradients of a matrix times itself") {
  CHECK_GRADIENTS(one([](auto in) { return matmul(in[0], in[0], false, true); }), input({3, 4}, 1));
}

DEVICE_TEST_CASE("gradients of linear") {
  const bool bias = GENERATE(false, true);
  CAPTURE(bias);
  CHECK_GRADIENTS(one([](auto in) { return linear(in[0], in[1], in[2]); }), input({2, 3, 5}, 1), input({4, 5}, 2), optional(bias, {4}, 3));
}

DEVICE_TEST_CASE("gradients of gelu_mlp and relu2_mlp") {
  const bool gelu = GENERATE(false, true), b1 = GENERATE(false, true), b2 = GENERATE(false, true);
  CAPTURE(gelu, b1, b2);
  const GradFunction f = one([=](auto in) { return (gelu ? gelu_mlp : relu2_mlp)(in[0], in[1], in[2], in[3], in[4]); });
  // relu2' has a kink at 0: a small step keeps every preactivation on its side; a quadratic has no error of higher order to extrapolate away.
  CHECK(test::gradient_errors(f, {input({2, 3, 4}, 1), input({6, 4}, 2), optional(b1, {6}, 3), input({4, 6}, 4), optional(b2, {4}, 5)},
                              {.step = gelu ? 1e-3 : 1e-5}) == "");
}

DEVICE_TEST_CASE("gradients of swiglu_mlp") {
  CHECK_GRADIENTS(one([](auto in) { return swiglu_mlp(in[0], in[1], in[2]); }), input({2, 3, 4}, 1), input({10, 4}, 2), input({4, 5}, 3));
}

DEVICE_TEST_CASE("gradients of attention over packed qkv") {
  const int64_t kv_heads = GENERATE(4, 2, 1), window = GENERATE(0, 3), b = 2, t = 7, h = 4, d = 4;
  const bool documents = GENERATE(false, true);
  CAPTURE(kv_heads, window, documents);
  AttentionOptions options;
  options.window = window;
  if (documents) options.document_start = ints({0, 0, 2, 2, 2, 5, 5, 0, 1, 1, 1, 1, 1, 6}, {b, t});
  CHECK_GRADIENTS(one([=](auto in) { return attention(in[0], h, kv_heads, options); }), input({b, t, (h + 2 * kv_heads) * d}, 1));
}

DEVICE_TEST_CASE("gradients of attention with its own scale") {
  CHECK_GRADIENTS(one([](auto in) { return attention(in[0], 2, 2, {.scale = 0.3f}); }), input({1, 5, 18}, 1));
}

DEVICE_TEST_CASE("gradients of attention over separate q, k and v") {
  const int64_t kv_heads = GENERATE(4, 2), window = GENERATE(0, 2), b = 2, t = 6, h = 4, d = 3;
  const bool documents = GENERATE(false, true);
  CAPTURE(kv_heads, window, documents);
  AttentionOptions options;
  options.window = window;
  if (documents) options.document_start = ints({0, 0, 2, 2, 2, 5, 0, 1, 1, 1, 1, 1}, {b, t});
  CHECK_GRADIENTS(one([=](auto in) { return attention(in[0], in[1], in[2], options); }), input({b, t, h, d}, 1), input({b, t, kv_heads, d}, 2),
                  input({b, t, kv_heads, d}, 3));

  // The same numbers as from the packed form.
  const Tensor qkv = input({b, t, (h + 2 * kv_heads) * d}, 4).detach();
  const auto heads = [&](int64_t first, int64_t count) {
    return reshape(contiguous(slice(qkv, 2, first * d, (first + count) * d)), {b, t, count, d});
  };
  const Tensor apart = attention(heads(0, h), heads(h, kv_heads), heads(h + kv_heads, kv_heads), options);
  CHECK(apart.to_vector() == attention(qkv, h, kv_heads, options).to_vector());
}

DEVICE_TEST_CASE("gradients of rope") {
  const int64_t rotated = GENERATE(0, 2, 3), first = GENERATE(0, 4);
  CAPTURE(rotated, first);
  const Tensor table = rope_table(9, 6, 10000, test::device());
  // In place, so the leaf is copied first.
  CHECK_GRADIENTS(one([=](auto in) { return rope_(scale(in[0], 1), table, rotated, first); }), input({2, 5, 3, 6}, 1));
}

DEVICE_TEST_CASE("gradients of the norms, of their two outputs") {
  const bool layer = GENERATE(false, true), residual = GENERATE(false, true), gain = GENERATE(false, true), bias = GENERATE(false, true);
  if (!layer && bias) return;
  const int outputs = GENERATE(0, 1, 2);  // y, sum, both
  CAPTURE(layer, residual, gain, bias, outputs);
  const GradFunction f = [=](std::span<const Tensor> in) -> std::vector<Tensor> {
    const NormOutput out = layer ? layer_norm(in[0], in[1], in[2], in[3]) : rms_norm(in[0], in[1], in[2]);
    if (outputs == 0) return {out.y};
    if (outputs == 1) return {out.sum};
    return {out.y, out.sum};
  };
  CHECK_GRADIENTS(f, input({2, 3, 6}, 1), optional(residual, {2, 3, 6}, 2), optional(gain, {6}, 3), optional(bias, {6}, 4));
}

DEVICE_TEST_CASE("gradients of qk_norm") {
  const bool q_gain = GENERATE(false, true), k_gain = GENERATE(false, true);
  CAPTURE(q_gain, k_gain);
  CHECK_GRADIENTS(one([](auto in) { return qk_norm(in[0], 4, 2, in[1], in[2]); }), input({2, 3, 8 * 4}, 1), optional(q_gain, {4}, 2),
                  optional(k_gain, {4}, 3));
}

DEVICE_TEST_CASE("gradients of embedding: repeated tokens, tokens that do not occur, positions, documents") {
  const bool position = GENERATE(false, true), documents = GENERATE(false, true);
  CAPTURE(position, documents);
  const Tensor tokens = ints({1, 4, 1, 1, 0, 4, 2, 2}, {2, 4});
  const Tensor start = documents ? ints({0, 0, 2, 2, 0, 1, 1, 1}, {2, 4}) : Tensor();
  CHECK_GRADIENTS(one([=](auto in) { return embedding(tokens, in[0], in[1], start); }), input({6, 3}, 1), optional(position, {5, 3}, 2));
  // The first shard of a vocabulary: it adds the positions too.
  const VocabShard shard{.first = 0, .vocabulary = 6};
  CHECK_GRADIENTS(one([=](auto in) { return embedding(tokens, in[0], in[1], start, shard); }), input({2, 3}, 1), optional(position, {5, 3}, 2));
}

DEVICE_TEST_CASE("gradients of linear_cross_entropy") {
  const int64_t chunk = GENERATE(0, 1, 4, 100);
  const float z_loss = GENERATE(0.0f, 0.05f);
  const bool weighted = GENERATE(false, true);
  CAPTURE(chunk, z_loss, weighted);
  const Tensor targets = ints({3, -1, 0, 6, 6, 2, -1}, {7});
  StepState state;
  state.loss_scale = 0.2f;
  const test::DeviceValue<StepState> step(state);
  const Tensor weights = weighted ? test::tensor({1, 2, -0.5, 0.25, 0, 3, 1}, {7}) : Tensor();
  const LossOptions options{.z_loss = z_loss, .scale = 1.5f, .step = step.get(), .chunk_rows = chunk, .weights = weights};
  CHECK_GRADIENTS(one([=](auto in) { return linear_cross_entropy(in[0], in[1], targets, options); }), input({7, 4}, 1), input({7, 4}, 2));
}

DEVICE_TEST_CASE("gradients of cross_entropy: anything may follow it") {
  const float z_loss = GENERATE(0.0f, 0.05f);
  const bool weighted = GENERATE(false, true);
  CAPTURE(z_loss, weighted);
  const Tensor targets = ints({3, -1, 0, 6, 6, 2, -1}, {7}), folded = ints({1, 0, 4, 4, -9, 2}, {2, 3});
  const Tensor weights = weighted ? test::tensor({1, 2, -0.5, 0.25, 0, 3, 1}, {7}) : Tensor();
  const CrossEntropyOptions options{.z_loss = z_loss, .weights = weights};
  CHECK_GRADIENTS(one([=](auto in) { return cross_entropy(in[0], targets, options); }), input({7, 8}, 1));
  CHECK_GRADIENTS(one([=](auto in) { return add(mean(mul(cross_entropy(in[0], targets, options), in[1])), sum(in[0]), 3, 0.5); }), input({7, 8}, 1),
                  input({7}, 2));
  CHECK_GRADIENTS(one([=](auto in) { return cross_entropy(transpose(in[0], 1, 2), folded, {.ignore_index = -9, .z_loss = z_loss}); }),
                  input({2, 5, 3}, 1));
}

DEVICE_TEST_CASE("gradients of linear_cross_entropy with a computed head and with a head tied to the embedding") {
  const Tensor targets = ints({3, 0, 6, 6, 2, 1}, {2, 3}), tokens = ints({0, 3, 5, 5, 1, 0}, {2, 3});
  CHECK_GRADIENTS(one([=](auto in) { return linear_cross_entropy(in[0], scale(in[1], 0.5), targets, {.chunk_rows = 4}); }), input({2, 3, 4}, 1),
                  input({7, 4}, 2));
  CHECK_GRADIENTS(one([=](auto in) { return linear_cross_entropy(gelu(embedding(tokens, in[0])), in[0], targets, {.chunk_rows = 4}); }),
                  input({7, 4}, 1));
}

DEVICE_TEST_CASE("gradients of elementwise ops") {
  const Tensor a = input({2, 3, 4}, 1), b = input({2, 3, 4}, 2);
  CHECK_GRADIENTS(one([](auto in) { return add(in[0], in[1]); }), a, b);
  CHECK_GRADIENTS(one([](auto in) { return add(in[0], in[1], 0.7, -1.3); }), a, b);
  CHECK_GRADIENTS(one([](auto in) { return add(in[0], in[0], 0.7, 1); }), a);
  CHECK_GRADIENTS(one([](auto in) { return mul(in[0], in[1]); }), a, b);
  CHECK_GRADIENTS(one([](auto in) { return mul(in[0], in[0]); }), a);
  CHECK_GRADIENTS(one([](auto in) { return scale(in[0], -2.5); }), a);
  CHECK_GRADIENTS(one([](auto in) { return cast(in[0], DType::f64); }), a);
  CHECK_GRADIENTS(one([](auto in) { return gelu(in[0]); }), a);
  CHECK_GRADIENTS(one([](auto in) { return silu(in[0]); }), a);
  CHECK_GRADIENTS(one([](auto in) { return swiglu(in[0]); }), a);
  CHECK_GRADIENTS(one([](auto in) { return sigmoid(in[0]); }), a);
  CHECK_GRADIENTS(one([](auto in) { return tanh(in[0]); }), a);
  CHECK_GRADIENTS(one([](auto in) { return exp(in[0]); }), a);
  CHECK_GRADIENTS(one([](auto in) { return softcap(in[0], 1.5f); }), a);
  CHECK_GRADIENTS(one([](auto in) { return log(exp(in[0])); }), a);
  CHECK_GRADIENTS(one([](auto in) { return div(in[0], exp(in[1])); }), a, b);
  CHECK_GRADIENTS(one([](auto in) { return div(exp(in[0]), sigmoid(in[0])); }), a);
  CHECK(test::gradient_errors(one([](auto in) { return relu2(in[0]); }), {a}, {.step = 1e-5}) == "");
}

DEVICE_TEST_CASE("gradients of softmax") {
  const float factor = GENERATE(1.0f, 0.4f);
  CHECK_GRADIENTS(one([=](auto in) { return softmax(in[0], factor); }), input({2, 3, 5}, 1));
}

DEVICE_TEST_CASE("gradients of dropout: the mask is drawn again") {
  StepState state;
  state.rng_stream = 9;
  const test::DeviceValue<StepState> step(state);
  const bool drawn_by_step = GENERATE(false, true);
  CHECK_GRADIENTS(
      one([=](auto in) { return dropout(in[0], 0.4f, {.seed = 3, .purpose = RngPurpose::dropout}, 5, drawn_by_step ? step.get() : nullptr); }),
      input({3, 7}, 1));
}

DEVICE_TEST_CASE("gradients of reductions") {
  CHECK_GRADIENTS(one([](auto in) { return sum(in[0]); }), input({2, 3, 4}, 1));
  CHECK_GRADIENTS(one([](auto in) { return mean(in[0]); }), input({2, 3, 4}, 1));
  const Tensor few = test::tensor({1, -2, 3.5, 0.25}, {2, 2});  // sums of these are exact
  CHECK(sum(few).to_vector() == std::vector<double>{2.75});
  CHECK(mean(few).to_vector() == std::vector<double>{0.6875});
  CHECK_GRADIENTS(one([](auto in) { return sum(mul(slice(in[0], 1, 1, 3), slice(in[0], 1, 0, 2))); }), input({2, 3, 4}, 1));
}

DEVICE_TEST_CASE("gradients of geometry ops") {
  const Tensor x = input({2, 3, 4}, 1), y = input({2, 5, 4}, 2);
  CHECK_GRADIENTS(one([](auto in) { return reshape(in[0], {4, 6}); }), x);
  for (int axis = -1; axis < 3; ++axis) {
    CHECK_GRADIENTS(one([=](auto in) { return slice(in[0], axis, 1, 2); }), x);
    CHECK_GRADIENTS(one([=](auto in) { return contiguous(slice(in[0], axis, 0, 2)); }), x);
    for (int other = 0; other < 3; ++other) CHECK_GRADIENTS(one([=](auto in) { return transpose(in[0], axis, other); }), x);
    CHECK_GRADIENTS(one([=](auto in) { return concat({in[0], in[0], scale(in[0], 2)}, axis); }), x);
  }
  CHECK_GRADIENTS(one([](auto in) { return concat({in[0], in[1]}, 1); }), x, y);
  // One tensor through overlapping slices and itself: three contributions of two kinds to one gradient.
  CHECK_GRADIENTS(one([](auto in) {
                    const Tensor h = scale(in[0], 1.5);
                    return concat({slice(h, 1, 0, 2), slice(h, 1, 1, 3), h}, 1);
                  }),
                  x);
  CHECK_GRADIENTS(one([](auto in) { return slice(slice(in[0], 1, 1, 3), 2, 1, 3); }), x);
}

DEVICE_TEST_CASE("a tensor given on and then added to: the giver's gradient stays its own") {
  // add gives the same dy to both inputs; h's gradient must not be added to in place while g still holds it.
  CHECK_GRADIENTS(one([](auto in) {
                    const Tensor g = gelu(in[0]), h = silu(in[1]);
                    return add(add(g, h), mul(h, g));
                  }),
                  input({3, 4}, 1), input({3, 4}, 2));
}

DEVICE_TEST_CASE("cast converts gradients back") {
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const Tensor x = test::random({3, 5}, 1, 0, 1, dtype);
  backward(sum(scale(cast(x, dtype == DType::f32 ? DType::bf16 : DType::f32), 0.25)));
  CHECK(x.grad().dtype() == dtype);
  CHECK(x.grad().to_vector() == std::vector<double>(15, 0.25));
}

}  // namespace
}  // namespace heddle
