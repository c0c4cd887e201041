// recompute(): the same gradients, bit for bit, from less memory.
#include <algorithm>

#include "core/arena.h"
#include "core/autograd/engine.h"
#include "core/autograd/node.h"
#include "core/nn/layers.h"
#include "core/nn/recompute.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

// Everything a block has: a norm with its residual, a product, dropout, and a parameter that forward never uses.
class Region final : public Module {
 public:
  Region() : norm_(kDim, {}), up_(kDim, 3 * kDim, {.bias = true, .init_std = 0.3f}), down_(3 * kDim, kDim, {.bias = true, .init_std = 0.3f}) {
    add("norm", norm_);
    add("up", up_);
    add("down", down_);
    unused_ = add("unused", {.kind = ParamKind::bias, .parts = {{.global = {5}}}});
  }
  Tensor forward(const Tensor& x) const {
    const NormOutput n = norm_.forward(x);
    return dropout(heddle::add(n.sum, down_.forward(gelu(up_.forward(n.y)))), 0.3f, {.seed = 4, .purpose = RngPurpose::dropout, .name = 2});
  }
  static constexpr int64_t kDim = 16;

 private:
  Norm norm_;
  Linear up_, down_;
  Parameter unused_;
};

class Stack final : public Module {
 public:
  explicit Stack(int depth) {
    for (int i = 0; i < depth; ++i) {
      regions_.push_back(std::make_unique<Region>());
      add("regions." + std::to_string(i), *regions_.back());
    }
  }
  // mode 0: plain; 1: each region recomputed; 2: all of them inside one more region
  Tensor forward(const Tensor& x, int mode) const {
    if (mode == 2)
      return recompute(
          *this, [this](const Tensor& h) { return forward(h, 1); }, x);
    Tensor h = x;
    for (const auto& r : regions_)
      h = mode ? recompute(
                     *r, [&r = *r](const Tensor& in) { return r.forward(in); }, h)
               : r->forward(h);
    return h;
  }

 private:
  std::vector<std::unique_ptr<Region>> regions_;
};

struct Gradients {
  std::vector<double> y, dx, arena;
  std::vector<std::string> hooked;
  size_t held = 0;
  bool operator==(const Gradients& other) const { return y == other.y && dx == other.dx && arena == other.arena; }
};

Gradients run(int mode, DType dtype, bool x_wants = true) {
  const test::Poisoned poisoned;
  Stack stack(3);
  Arena arena(stack, test::device(), dtype);
  arena.init(1);
  arena.begin_step();
  Tensor x = test::random({8, Region::kDim}, 5, 0, 1, dtype, x_wants);
  const auto live = [] { return memory_stats(test::device()).live[static_cast<size_t>(MemoryTag::activation)]; };
  const size_t before = live();
  const Tensor y = stack.forward(x, mode);
  Gradients g;
  g.held = live() - before;
  g.y = y.to_vector();
  const auto parameters = stack.parameters();
  backward(sum(mul(y, y)), arena.leaves(), [&](const Tensor& leaf) {
    for (const Parameter& p : parameters) {
      if (p.tensor().same(leaf)) g.hooked.push_back(p.name());
    }
  });
  g.arena = arena.grads().to_vector();
  if (x_wants) g.dx = x.grad().to_vector();
  return g;
}

DEVICE_TEST_CASE("a recomputed region gives the plain region's gradients bit for bit, dropout included") {
  const DType dtype = GENERATE(DType::f32, DType::bf16, DType::f64);
  const bool x_wants = GENERATE(true, false);
  CAPTURE(name_of(dtype), x_wants);
  const Gradients plain = run(0, dtype, x_wants), each = run(1, dtype, x_wants), nested = run(2, dtype, x_wants);
  CHECK(each == plain);
  CHECK(nested == plain);
  CHECK(each.held < plain.held / 2);
  CHECK(nested.held < each.held);
}

DEVICE_TEST_CASE("a recomputed region hooks each of its parameters once, the used and the unused, last region first") {
  const int mode = GENERATE(0, 1, 2);
  Gradients g = run(mode, DType::f32);
  CHECK(g.hooked.size() == 3 * 7);
  if (mode == 1) {
    for (size_t i = 0; i < g.hooked.size(); ++i) CHECK(g.hooked[i].starts_with("regions." + std::to_string(2 - i / 7)));
  }
  std::sort(g.hooked.begin(), g.hooked.end());
  CHECK(std::adjacent_find(g.hooked.begin(), g.hooked.end()) == g.hooked.end());
}

DEVICE_TEST_CASE("a parameter shared by two recomputed regions is hooked after the second") {
  Linear shared(4, 4, {.bias = true, .init_std = 0.5f});
  Arena arena(shared, test::device(), DType::f32);
  arena.init(1);
  const auto fn = [&](const Tensor& h) { return gelu(shared.forward(h)); };
  const Tensor x = test::random({3, 4}, 1, 0, 1, DType::f32, false);
  std::vector<std::vector<double>> at_hook;
  backward(sum(recompute(shared, fn, recompute(shared, fn, x))), arena.leaves(), [&](const Tensor& t) { at_hook.push_back(t.grad().to_vector()); });
  REQUIRE(at_hook.size() == 2);
  const std::vector<double> recomputed = arena.grads().to_vector();
  CHECK(std::find(at_hook.begin(), at_hook.end(), shared.weight().tensor().grad().to_vector()) != at_hook.end());
  arena.begin_step();
  backward(sum(fn(fn(x))));
  CHECK(arena.grads().to_vector() == recomputed);
}

DEVICE_TEST_CASE("a region may return its input or not be recorded at all") {
  Linear layer(4, 4, {.init_std = 0.5f});
  Arena arena(layer, test::device(), DType::f32);
  arena.init(1);
  const Tensor x = test::random({3, 4}, 1, 0, 1, DType::f32);
  const std::vector<Tensor> leaves = arena.leaves();
  backward(sum(scale(recompute(
                         layer, [](const Tensor& h) { return h; }, x),
                     3)),
           leaves);
  CHECK(x.grad().to_vector() == std::vector<double>(12, 3));
  CHECK(layer.weight().tensor().grad().to_vector() == std::vector<double>(16, 0));
  NoGradGuard no_grad;
  CHECK_FALSE(recompute(
                  layer, [&](const Tensor& h) { return layer.forward(h); }, x)
                  .requires_grad());
}

DEVICE_TEST_CASE("the input of a recomputed region must not change before backward") {
  Linear layer(4, 4, {.init_std = 0.5f});
  Arena arena(layer, test::device(), DType::f32);
  arena.init(1);
  const Tensor x = test::random({1, 3, 1, 4}, 1, 0, 1, DType::f32, false);
  const Tensor y = recompute(
      layer, [&](const Tensor& h) { return layer.forward(h); }, x);
  rope_(x, rope_table(3, 4, 10000, test::device()), 1);
  CHECK_THROWS_WITH(backward(sum(y)), Catch::Matchers::Contains("changed in place"));
}

}  // namespace
}  // namespace heddle
