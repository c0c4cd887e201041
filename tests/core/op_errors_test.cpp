// What ops say about arguments that do not fit: the op, the rule, the values.
#include "core/autograd/engine.h"
#include "core/ops/ops.h"
#include "kernels/api/check.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;

Tensor f32(Shape shape) {
  return test::zeros(shape);
}
Tensor i32(Shape shape, int value = 0) {
  return test::full(shape, value, DType::i32);
}

DEVICE_TEST_CASE("matmul and linear") {
  CHECK_THROWS_WITH(matmul(f32({4, 96}), f32({128, 64})), Contains("[matmul]") && Contains("(4, 96)") && Contains("(128, 64)"));
  CHECK_THROWS_WITH(matmul(f32({4, 3}), f32({4, 3}), true, true), Contains("inner dimensions") && Contains("transposed"));
  CHECK_THROWS_WITH(matmul(f32({4}), f32({4, 3})), Contains("two matrices"));
  CHECK_THROWS_WITH(matmul(f32({4, 4}), test::zeros({4, 4}, DType::bf16)), Contains("operands differ") && Contains("bf16 (4, 4)"));
  CHECK_THROWS_WITH(matmul(f32({4, 4}), Tensor()), Contains("[matmul]"));
  CHECK_THROWS_WITH(matmul(i32({4, 4}), i32({4, 4})), Contains("floating"));
  CHECK_THROWS_WITH(linear(f32({2, 3}), f32({4, 5})), Contains("[linear]") && Contains("(2, 3)") && Contains("(4, 5)"));
  CHECK_THROWS_WITH(linear(f32({2, 3}), Tensor()), Contains("[linear]"));
  CHECK_THROWS_WITH(linear(f32({2, 3}), f32({4, 3}), f32({3})), Contains("(3)"));
}

DEVICE_TEST_CASE("fused MLPs") {
  CHECK_THROWS_WITH(gelu_mlp(f32({2, 3}), f32({8, 3}), {}, f32({3, 7}), {}), Contains("[gelu_mlp]") && Contains("(3, 7)"));
  CHECK_THROWS_WITH(swiglu_mlp(f32({2, 3}), f32({7, 3}), f32({3, 7})), Contains("[swiglu_mlp]"));
}

DEVICE_TEST_CASE("attention, rope and norms") {
  CHECK_THROWS_WITH(attention(f32({1, 4, 24}), 3, 2), Contains("3 heads") && Contains("2 KV heads"));
  CHECK_THROWS_WITH(attention(f32({1, 4, 25}), 2, 2), Contains("(1, 4, 25)"));
  CHECK_THROWS_WITH(attention(f32({1, 4, 24}), 0, 0), Contains("[attention]"));
  CHECK_THROWS_WITH(attention(f32({1, 4, 2, 3}), f32({1, 3, 2, 3}), f32({1, 3, 2, 3})), Contains("[attention"));
  CHECK_THROWS_WITH(attention(f32({1, 4, 2, 3}), Tensor(), Tensor()), Contains("[attention]"));
  CHECK_THROWS_WITH(rope_(f32({1, 4, 2, 6}), rope_table(3, 6, 100, test::device()), 2), Contains("does not cover"));
  CHECK_THROWS_WITH(rope_(f32({1, 4, 2, 6}), rope_table(4, 6, 100, test::device()), 3), Contains("3 of 2 heads"));
  CHECK_THROWS_WITH(rope_table(4, 5, 100), Contains("5 is not even"));
  CHECK_THROWS_WITH(layer_norm(f32({2, 4}), {}, f32({3}), {}), Contains("[layer_norm]") && Contains("(3)"));
  CHECK_THROWS_WITH(rms_norm(f32({2, 4}), f32({4, 2}), {}), Contains("[rms_norm]") && Contains("residual"));
  CHECK_THROWS_WITH(qk_norm(f32({1, 2, 7}), 2, 2, {}, {}), Contains("[qk_norm]"));
  CHECK_THROWS_WITH(qk_norm(f32({1, 2, 8}), 0, 0, {}, {}), Contains("[qk_norm]"));
  CHECK_THROWS_WITH(qk_norm(f32({1, 2, 24}), 2, 2, f32({3}), {}), Contains("[qk_norm]") && Contains("(3)"));
}

DEVICE_TEST_CASE("embedding and loss") {
  CHECK_THROWS_WITH(embedding(f32({1, 2}), f32({5, 3})), Contains("i32"));
  CHECK_THROWS_WITH(embedding(i32({1, 4}), f32({5, 3}), f32({3, 3})), Contains("positions"));
  CHECK_THROWS_WITH(linear_cross_entropy(f32({2, 3}), f32({5, 4}), i32({2}), {}), Contains("(5, 4)"));
  CHECK_THROWS_WITH(linear_cross_entropy(f32({2, 3}), f32({5, 3}), i32({3}), {}), Contains("targets"));
  CHECK_THROWS_WITH(linear_cross_entropy(f32({2, 3}), f32({5, 3}), i32({2}), {.weights = f32({3})}), Contains("weights f32 (3)"));
  CHECK_THROWS_WITH(linear_cross_entropy(f32({2, 3}), f32({5, 3}), i32({2}), {.weights = i32({2})}), Contains("weights i32 (2)"));
  CHECK_THROWS_WITH(token_losses(f32({2, 3}), f32({5, 3}), i32({2}), {.weights = f32({1})}), Contains("[token_losses]") && Contains("weights"));
  CHECK_THROWS_WITH(cross_entropy(f32({2, 5}), i32({3})), Contains("[cross_entropy] targets i32 (3) for logits f32 (2, 5)"));
  CHECK_THROWS_WITH(cross_entropy(f32({2, 5}), f32({2})), Contains("targets f32 (2)"));
  CHECK_THROWS_WITH(cross_entropy(i32({2, 5}), i32({2})), Contains("logits must be a floating tensor"));
  CHECK_THROWS_WITH(cross_entropy(f32({2, 5}), i32({2}), {.weights = f32({3})}), Contains("weights f32 (3)"));
  for (const VocabShard& shard : {VocabShard{0, 6}, VocabShard{5, 10}, VocabShard{5, 7}}) {
    CHECK_THROWS_WITH(linear_cross_entropy(f32({2, 3}), f32({5, 3}), i32({2}), {.shard = shard}), Contains("LossOptions::gather"));
    CHECK_THROWS_WITH(token_losses(f32({2, 3}), f32({5, 3}), i32({2}), {.shard = shard}), Contains("LossOptions::gather"));
  }
}

TEST_CASE("tokens and targets outside the vocabulary") {  // values, which the host reads on the CPU alone
  CHECK_THROWS_WITH(embedding(i32({1, 2}, 5), f32({5, 3})), Contains("5"));
  CHECK_THROWS_WITH(linear_cross_entropy(f32({2, 3}), f32({5, 3}), i32({2}, 9), {}), Contains("9"));
  CHECK_THROWS_WITH(cross_entropy(f32({2, 5}), i32({2}, 5)), Contains("targets[0] = 5, V = 5"));
}

DEVICE_TEST_CASE("elementwise and geometry") {
  CHECK_THROWS_WITH(add(f32({2}), f32({3})), Contains("(2)") && Contains("(3)"));
  CHECK_THROWS_WITH(mul(f32({2}), f32({3})), Contains("[mul]"));
  CHECK_THROWS_WITH(div(f32({2}), f32({3})), Contains("[div]"));
  CHECK_THROWS_WITH(softcap(f32({2}), 0), Contains("[softcap]") && Contains("not above 0"));
  CHECK_THROWS_WITH(exp(i32({2})), Contains("floating"));
  CHECK_THROWS_WITH(swiglu(f32({2, 3})), Contains("not even"));
  CHECK_THROWS_WITH(dropout(f32({2}), 1.0f, {}), Contains("[0, 1)"));
  CHECK_THROWS_WITH(reshape(f32({2, 3}), {7}), Contains("(2, 3)") && Contains("(7)"));
  CHECK_THROWS_WITH(slice(f32({2, 3}), 1, 2, 4), Contains("[2, 4)"));
  CHECK_THROWS_WITH(slice(f32({2, 3}), 2, 0, 1), Contains("axis 2"));
  CHECK_THROWS_WITH(concat({f32({2, 3}), f32({3, 2})}, 0), Contains("[concat]"));
  CHECK_THROWS_WITH(concat(std::vector<Tensor>{}, 0), Contains("of nothing"));
  CHECK_THROWS_WITH(transpose(f32({2, 3}), 0, 5), Contains("axis 5"));
  CHECK_THROWS_WITH(gelu(Tensor()), Contains("floating"));
}

DEVICE_TEST_CASE("empty batches pass through forward and backward sizes of zero") {
  const Tensor x = f32({0, 4}), w = f32({3, 4});
  CHECK(linear(x, w).shape() == Shape{0, 3});
  CHECK(layer_norm(x, {}, {}, {}).y.shape() == Shape{0, 4});
  CHECK(linear_cross_entropy(x, w, i32({0}), {}).item() == 0);
  CHECK(cross_entropy(x, i32({0})).shape() == Shape{0});
  CHECK(sum(x).item() == 0);
  const test::Poisoned poisoned;
  const Tensor head = test::random({3, 4}, 1);
  backward(linear_cross_entropy(x, head, i32({0}), {}));
  CHECK(head.grad().to_vector() == std::vector<double>(12, 0));
}

}  // namespace
}  // namespace heddle
