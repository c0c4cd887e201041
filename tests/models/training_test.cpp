// A training step of a whole model: memory, hooks, threads.
#include <omp.h>

#include <algorithm>
#include <cmath>

#include "core/autograd/engine.h"
#include "core/autograd/node.h"
#include "models/presets.h"
#include "tests/models/support.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

TransformerConfig tiny(bool llama) {
  TransformerConfig c = preset(llama ? "tiny-llama" : "tiny-gpt").config;
  c.vocab = 101;
  return c;
}

DEVICE_TEST_CASE("after its first step a training loop asks the device for nothing, and its peak stays") {
  const bool llama = GENERATE(false, true), recompute = GENERATE(false, true);
  TransformerConfig c = tiny(llama);
  c.recompute = recompute;
  const Transformer model(c);
  Arena arena(model, test::device(), DType::f32);
  arena.init(1);
  const Tensor tokens = test::random_tokens(2, 48, c.vocab, 1), targets = test::random_tokens(2, 48, c.vocab, 2);
  const auto step = [&] {
    arena.begin_step();
    for (int micro = 0; micro < 2; ++micro) backward(model.loss(tokens, targets, {}, {.scale = 0.01f}), arena.leaves());
  };
  step();
  reset_peaks(test::device());
  const MemoryStats warm = memory_stats(test::device());
  step();
  const size_t peak = memory_stats(test::device()).peak_total;
  for (int i = 0; i < 5; ++i) step();
  const MemoryStats after = memory_stats(test::device());
  CHECK(after.device_allocations == warm.device_allocations);
  CHECK(after.reserved == warm.reserved);
  CHECK(after.peak_total == peak);
  CHECK(after.live_total == warm.live_total);
  const auto live = [&](MemoryTag tag) { return after.live[static_cast<size_t>(tag)]; };
  CHECK(live(MemoryTag::parameter) >= static_cast<size_t>(model.parameter_count()) * sizeof(float));
  CHECK(live(MemoryTag::gradient) >= static_cast<size_t>(model.parameter_count()) * sizeof(float));
}

DEVICE_TEST_CASE("recomputation keeps less") {
  const auto peak = [](bool recompute) {
    TransformerConfig c = tiny(false);
    c.layers = 6, c.recompute = recompute;
    const Transformer model(c);
    Arena arena(model, test::device(), DType::f32);
    arena.init(1);
    const Tensor tokens = test::random_tokens(2, 64, c.vocab, 1);
    const size_t before = memory_stats(test::device()).live_total;
    reset_peaks(test::device());
    backward(model.loss(tokens, tokens, {}, {}), arena.leaves());
    return memory_stats(test::device()).peak_total - before;
  };
  CHECK(peak(true) * 2 < peak(false));
}

DEVICE_TEST_CASE("every parameter is hooked once, the last block's before the first one's have a gradient") {
  const auto style = GENERATE(from_range(test::styles()));
  CAPTURE(style.name);
  const Transformer model(style.config);
  Arena arena(model, test::device(), DType::f32);
  test::randomize(arena);
  const auto parameters = model.parameters();
  const Tensor tokens = test::random_tokens(2, 6, 7, 1);
  std::vector<std::string> order;
  bool first_block_untouched = false;
  arena.begin_step();
  backward(model.loss(tokens, tokens, {}, {}), arena.leaves(), [&](const Tensor& leaf) {
    const auto it = std::find_if(parameters.begin(), parameters.end(), [&](const Parameter& p) { return p.tensor().same(leaf); });
    REQUIRE(it != parameters.end());
    if (it->name() == "blocks.1.attn.qkv.weight") {
      first_block_untouched = std::all_of(parameters.begin(), parameters.end(),
                                          [](const Parameter& p) { return !p.name().starts_with("blocks.0.") || !p.tensor().impl().grad_written; });
    }
    order.push_back(it->name());
  });
  CHECK(first_block_untouched);
  const auto position = [&](const std::string& name) { return std::find(order.begin(), order.end(), name) - order.begin(); };
  for (const Parameter& p : parameters) {
    if (!p.name().starts_with("blocks.1.")) continue;
    CHECK(position(p.name()) < position("blocks.0.attn.qkv.weight"));
  }
  CHECK(order.back() == (style.config.position == Position::learned ? "pos.weight" : "tok.weight"));
  std::sort(order.begin(), order.end());
  CHECK(std::adjacent_find(order.begin(), order.end()) == order.end());
  CHECK(order.size() == parameters.size());
}

TEST_CASE("no bit of the loss or of a gradient depends on the number of threads") {  // of the CPU's kernels
  const bool llama = GENERATE(false, true);
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  CAPTURE(llama, name_of(dtype));
  const int threads_before = omp_get_max_threads();
  const auto run = [&](int threads) {
    omp_set_num_threads(threads);
    const Transformer model(tiny(llama));
    Arena arena(model, test::device(), dtype);
    arena.init(1);
    arena.begin_step();
    const Tensor tokens = test::random_tokens(3, 100, 101, 1), targets = test::random_tokens(3, 100, 101, 2);
    const Tensor loss = model.loss(tokens, targets, {}, {.scale = 1.0f / 300});
    backward(loss, arena.leaves());
    return std::pair{loss.item(), arena.grads().to_vector()};
  };
  const auto one = run(1);
  CHECK((run(2) == one));
  CHECK((run(3) == one));
  CHECK(std::isfinite(one.first));
  omp_set_num_threads(threads_before);
}

DEVICE_TEST_CASE("at initialisation the loss is near ln V, and a few plain gradient steps lower it") {
  const bool llama = GENERATE(false, true);
  const TransformerConfig c = tiny(llama);
  const Transformer model(c);
  Arena arena(model, test::device(), DType::f32);
  arena.init(1);
  const Tensor tokens = test::random_tokens(2, 32, c.vocab, 1), targets = test::random_tokens(2, 32, c.vocab, 2);
  const auto loss = [&] { return model.loss(tokens, targets, {}, {.scale = 1.0f / 64}); };
  double first = 0, last = 0;
  for (int i = 0; i < 40; ++i) {
    arena.begin_step();
    const Tensor l = loss();
    backward(l, arena.leaves());
    (i ? last : first) = l.item();
    NoGradGuard no_grad;
    const Tensor moved = add(arena.values(), arena.grads(), 1, -0.1);
    copy_bytes(arena.values().bytes().data(), test::device(), moved.bytes().data(), test::device(), moved.bytes().size());
  }
  CHECK(std::abs(first - std::log(101.0)) < 0.1);
  CHECK(last < first - 0.2);
}

}  // namespace
}  // namespace heddle
