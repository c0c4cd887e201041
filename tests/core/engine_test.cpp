// What backward promises: order, hooks, accumulation, and the errors that keep a graph from being misused.
#include "core/autograd/engine.h"

#include <map>
#include <thread>

#include "core/autograd/node.h"
#include "core/ops/ops.h"
#include "kernels/api/step_state.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;
using test::ints;

Tensor leaf(Shape shape, uint64_t seed) {
  return test::random(shape, seed);
}
Tensor constant(Shape shape, uint64_t seed) {
  return test::random(shape, seed, 0, 1, DType::f32, false);
}
Tensor table_of(int64_t positions, int64_t dim) {
  return rope_table(positions, dim, 10000, test::device());
}

// Records which leaf was hooked, in order, and its gradient at that moment.
struct Hooked {
  std::vector<TensorImpl*> order;
  std::map<TensorImpl*, std::vector<double>> gradient;
  LeafHook hook() {
    return [this](const Tensor& t) {
      order.push_back(t.shared().get());
      gradient[t.shared().get()] = t.grad().to_vector();
    };
  }
};

DEVICE_TEST_CASE("hooks: the last layer's leaves first, each final when hooked, before earlier layers have run") {
  const test::Poisoned poisoned;
  std::vector<Tensor> w;
  for (uint64_t i = 0; i < 4; ++i) w.push_back(leaf({5, 5}, i));
  Tensor h = constant({3, 5}, 9);
  for (const Tensor& each : w) h = gelu(linear(h, each));
  Hooked hooked;
  size_t unwritten_at_first_hook = 0;
  backward(sum(h), w, [&](const Tensor& t) {
    if (hooked.order.empty()) {
      for (const Tensor& each : w) unwritten_at_first_hook += each.grad() ? 0 : 1;
    }
    hooked.hook()(t);
  });
  REQUIRE(hooked.order.size() == 4);
  CHECK(unwritten_at_first_hook == 3);
  for (size_t i = 0; i < 4; ++i) {
    CHECK(hooked.order[i] == w[3 - i].shared().get());
    CHECK(hooked.gradient[w[i].shared().get()] == w[i].grad().to_vector());
  }
}

DEVICE_TEST_CASE("hooks: a tied parameter has two edges and one hook, after its last write") {
  const test::Poisoned poisoned;
  const Tensor table = leaf({7, 4}, 1), w = leaf({4, 4}, 2);
  const Tensor tokens = ints({0, 3, 3, 6}, {1, 4}), targets = ints({3, 3, 6, 1}, {1, 4});
  const auto loss = [&] { return linear_cross_entropy(linear(embedding(tokens, table), w), table, targets, {}); };
  Hooked hooked;
  const std::vector<Tensor> leaves{table, w};
  backward(loss(), leaves, hooked.hook());
  CHECK(hooked.order == std::vector<TensorImpl*>{w.shared().get(), table.shared().get()});
  CHECK(hooked.gradient[table.shared().get()] == table.grad().to_vector());

  // The two halves of its gradient, by untying.
  const std::vector<double> tied = table.grad().to_vector();
  const Tensor head = test::tensor(table.to_vector(), table.shape()).set_requires_grad(true);
  table.clear_grad(), w.clear_grad();
  backward(linear_cross_entropy(linear(embedding(tokens, table), w), head, targets, {}));
  const std::vector<double> a = head.grad().to_vector(), b = table.grad().to_vector();
  for (size_t i = 0; i < tied.size(); ++i) CHECK(std::abs(tied[i] - (a[i] + b[i])) <= 1e-6 * (std::abs(a[i]) + std::abs(b[i]) + 1e-3));
}

DEVICE_TEST_CASE("hooks: leaves that nothing reaches are zeroed and hooked once, at the end") {
  const test::Poisoned poisoned;
  const Tensor used = leaf({4, 4}, 1), unreached = leaf({3}, 2), gain = leaf({4}, 3), bias = leaf({4}, 4), x = constant({2, 4}, 5);
  // gain and bias are edges of the norm, but only its sum is used: no gradient arrives there.
  const NormOutput n = layer_norm(linear(x, used), {}, gain, bias);
  Hooked hooked;
  const std::vector<Tensor> leaves{unreached, used, gain, bias, used};  // one is listed twice
  backward(sum(n.sum), leaves, hooked.hook());
  REQUIRE(hooked.order.size() == 4);
  CHECK(hooked.order.back() == unreached.shared().get());
  CHECK(unreached.grad().to_vector() == std::vector<double>(3, 0));
  CHECK(gain.grad().to_vector() == std::vector<double>(4, 0));
  CHECK(bias.grad().to_vector() == std::vector<double>(4, 0));
}

DEVICE_TEST_CASE("hooks: a leaf that was not asked for gets its gradient and no hook") {
  const Tensor a = leaf({2, 2}, 1), b = leaf({2, 2}, 2);
  Hooked hooked;
  const std::vector<Tensor> leaves{a};
  backward(sum(mul(a, b)), leaves, hooked.hook());
  CHECK(hooked.order == std::vector<TensorImpl*>{a.shared().get()});
  CHECK(b.grad().to_vector() == a.to_vector());
}

DEVICE_TEST_CASE("an unreached leaf keeps what earlier micro-batches wrote") {
  const Tensor a = leaf({3}, 1), b = leaf({3}, 2);
  const std::vector<Tensor> leaves{a, b};
  backward(sum(scale(b, 2)), leaves);
  CHECK(b.grad().to_vector() == std::vector<double>(3, 2));
  CHECK(a.grad().to_vector() == std::vector<double>(3, 0));
  backward(sum(scale(a, 3)), leaves);
  CHECK(b.grad().to_vector() == std::vector<double>(3, 2));
  CHECK(a.grad().to_vector() == std::vector<double>(3, 3));
}

DEVICE_TEST_CASE("micro-batches: the first write is =, the next +=, and clearing starts over") {
  const test::Poisoned poisoned;
  const Tensor w = leaf({3, 4}, 1), gain = leaf({4}, 2);
  const auto gradients = [&](uint64_t seed) {
    backward(sum(gelu(linear(rms_norm(constant({5, 4}, seed), {}, gain).y, w))));
    return std::pair{w.grad().to_vector(), gain.grad().to_vector()};
  };
  const auto clear = [&] { w.clear_grad(), gain.clear_grad(); };
  const auto first = gradients(10);
  clear();
  const auto second = gradients(11);
  clear();
  CHECK(gradients(10) == first);
  const auto both = gradients(11);
  for (size_t i = 0; i < first.first.size(); ++i) {
    CHECK(std::abs(both.first[i] - (first.first[i] + second.first[i])) <= 1e-6 * (std::abs(first.first[i]) + std::abs(second.first[i]) + 1));
  }
  for (size_t i = 0; i < first.second.size(); ++i) {
    CHECK(std::abs(both.second[i] - (first.second[i] + second.second[i])) <= 1e-6 * (std::abs(first.second[i]) + std::abs(second.second[i]) + 1));
  }
}

DEVICE_TEST_CASE("a weight that is changed between forward and backward is found out, one that backward does not read is not asked for") {
  const Tensor w = leaf({4, 4}, 1), v = leaf({4, 4}, 2);
  const Tensor y = linear(linear(constant({3, 4}, 3), v), w);
  v.storage()->bump_version();  // as an optimizer does; the first product's input wants no gradient
  CHECK_NOTHROW(backward(sum(y)));
  const Tensor again = linear(linear(constant({3, 4}, 3), v), w);
  w.storage()->bump_version();
  CHECK_THROWS_WITH(backward(sum(again)), Contains("changed in place"));
}

DEVICE_TEST_CASE("a saved tensor that is changed in place is found out") {
  const Tensor w = leaf({4, 4}, 1), table = table_of(3, 4);
  const Tensor h = linear(constant({1, 3, 4}, 2), w);
  const Tensor saver = gelu(h);  // saves h
  rope_(reshape(h, {1, 3, 1, 4}), table, 1);
  CHECK_THROWS_WITH(backward(sum(saver)), Contains("changed in place"));
}

DEVICE_TEST_CASE("an in-place op on a leaf that wants a gradient is refused") {
  const Tensor x = leaf({1, 3, 1, 4}, 1), table = table_of(3, 4);
  CHECK_THROWS_WITH(rope_(x, table, 1), Contains("in place"));
  NoGradGuard no_grad;
  CHECK_NOTHROW(rope_(x, table, 1));
}

DEVICE_TEST_CASE("a graph can be used once") {
  const Tensor x = leaf({3}, 1);
  const Tensor h = gelu(x), a = sum(h), b = sum(scale(h, 2));
  backward(a);
  CHECK_THROWS_WITH(backward(a), Contains("ran through this graph before"));
  CHECK_THROWS_WITH(backward(b), Contains("ran through this graph before"));  // shares h
}

DEVICE_TEST_CASE("the fused loss must be the root") {
  const Tensor x = leaf({2, 3}, 1), w = leaf({5, 3}, 2);
  const Tensor loss = linear_cross_entropy(x, w, ints({1, 4}, {2}), {});
  CHECK_THROWS_WITH(backward(scale(loss, 0.5)), Contains("root of backward"));
}

DEVICE_TEST_CASE("backward refuses what it cannot differentiate") {
  const Tensor x = leaf({2, 2}, 1);
  CHECK_THROWS_WITH(backward(gelu(x)), Contains("(2, 2)") && Contains("one element"));
  CHECK_THROWS_WITH(backward(sum(constant({2}, 1))), Contains("does not depend on anything"));
  CHECK_THROWS_WITH(backward(leaf({1}, 1)), Contains("leaf"));
  CHECK_THROWS_WITH(backward_from(gelu(x), constant({2}, 1)), Contains("seed of shape (2)"));
}

DEVICE_TEST_CASE("no-grad regions record nothing, nest, and end with their scope and thread") {
  const Tensor x = leaf({2}, 1);
  CHECK(gelu(x).requires_grad());
  {
    NoGradGuard off;
    CHECK_FALSE(gelu(x).requires_grad());
    {
      NoGradGuard on(true);
      CHECK(gelu(x).requires_grad());
    }
    CHECK_FALSE(gelu(x).requires_grad());
    bool other_thread = false;
    std::thread([&] { other_thread = gelu(x).requires_grad(); }).join();
    CHECK(other_thread);
  }
  try {
    NoGradGuard off;
    matmul(x, x);
  } catch (const Error&) {
  }
  CHECK(gelu(x).requires_grad());
  CHECK_FALSE(gelu(x.detach()).requires_grad());
}

DEVICE_TEST_CASE("a hook's exception reaches the caller") {
  const Tensor x = leaf({2}, 1);
  const std::vector<Tensor> leaves{x};
  CHECK_THROWS_WITH(backward(sum(gelu(x)), leaves, [](const Tensor&) { fail("hook", "stop here"); }), Contains("stop here"));
}

DEVICE_TEST_CASE("gradients of a tensor with many users are added in one fixed order: latest user first") {
  const Tensor x = leaf({64}, 1);
  const Tensor h = scale(x, 1);
  Tensor total = sum(scale(h, 1));  // 1 is lost beside 1e8 unless it is added last
  for (float factor : {1e8f, -1e8f}) total = add(total, sum(scale(h, factor)));
  backward(total);
  CHECK(x.grad().to_vector() == std::vector<double>(64, 1.0));
}

TEST_CASE("very long graphs neither recurse nor overflow the stack") {  // of the host
  const Tensor x = leaf({1}, 1);
  constexpr int kDepth = 200000;  // recursion would take 20 MB of stack and more
  {
    Tensor h = x;
    for (int i = 0; i < kDepth; ++i) h = scale(h, 1);
  }  // dropped unused
  Tensor h = x;
  for (int i = 0; i < kDepth; ++i) h = scale(h, 1);
  backward(sum(h));
  CHECK(x.grad().item() == 1);
}

DEVICE_TEST_CASE("saved tensors go as backward passes them") {
  const Tensor x = constant({256, 64}, 1);
  std::vector<Tensor> w;
  for (uint64_t i = 0; i < 6; ++i) w.push_back(leaf({64, 64}, i));
  const auto live = [] { return memory_stats(test::device()).live[static_cast<size_t>(MemoryTag::activation)]; };
  const size_t before = live();
  Tensor h = x;
  for (const Tensor& each : w) h = gelu(linear(h, each));
  const Tensor loss = sum(h);
  h = Tensor();
  const size_t held = live();
  CHECK(held >= before + 11 * 256 * 64 * sizeof(float));
  std::vector<size_t> at_hook;
  backward(loss, w, [&](const Tensor&) { at_hook.push_back(live()); });
  REQUIRE(at_hook.size() == 6);
  for (size_t i = 1; i < 6; ++i) CHECK(at_hook[i] < at_hook[i - 1]);
  CHECK(live() <= before + 1024);  // the loss itself
}

// An op a user writes: y0 = 2 x, y1 = 3 x, one node with two outputs.
class TwoOutputsNode final : public Node {
 public:
  std::string_view name() const override { return "two_outputs"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    seen = {static_cast<bool>(dy[0]), static_cast<bool>(dy[1])};
    if (dy[0]) dx[0].give(scale(dy[0], 2));
    if (dy[1]) dx[0].give(scale(dy[1], 3));
  }
  void release_saved() override {}
  std::array<bool, 2> seen{};
};

DEVICE_TEST_CASE("a node with two outputs sees which of them a gradient reached") {
  const Tensor x = leaf({4}, 1);
  const auto make = [&](std::shared_ptr<TwoOutputsNode> node) {
    Tensor a, b;
    {
      NoGradGuard no_grad;
      a = scale(x, 2), b = scale(x, 3);
    }
    record(node, {&x}, {&a, &b});
    return std::pair{a, b};
  };
  auto node = std::make_shared<TwoOutputsNode>();
  backward(sum(make(node).second));
  CHECK(node->seen == std::array{false, true});
  CHECK(x.grad().to_vector() == std::vector<double>(4, 3));
  x.clear_grad();
  node = std::make_shared<TwoOutputsNode>();
  const auto [a, b] = make(node);
  backward(add(sum(a), sum(b)));
  CHECK(node->seen == std::array{true, true});
  CHECK(x.grad().to_vector() == std::vector<double>(4, 5));
}

DEVICE_TEST_CASE("a gradient of the wrong shape is an error that names both") {
  class WrongNode final : public Node {
   public:
    std::string_view name() const override { return "wrong"; }
    void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override { dx[0].give(reshape(dy[0], {2, 2})); }
    void release_saved() override {}
  };
  const Tensor x = leaf({4}, 1);
  Tensor y = x.detach();
  record(std::make_shared<WrongNode>(), {&x}, {&y});
  CHECK_THROWS_WITH(backward(sum(y)), Contains("(2, 2)") && Contains("(4)"));
}

DEVICE_TEST_CASE("backward_from starts at any tensor with any seed") {
  const Tensor w = leaf({3, 4}, 1), x = constant({2, 4}, 2), seed = constant({2, 3}, 3);
  backward_from(linear(x, w), seed);
  const std::vector<double> want = matmul(seed, x, true).to_vector();
  CHECK(w.grad().to_vector() == want);
}

}  // namespace
}  // namespace heddle
