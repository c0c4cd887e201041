// Nobody keeps a weight's address: a model whose weights exist only between acquire and release, each time elsewhere, trains to the same bits.
#include <limits>
#include <map>
#include <set>

#include "core/autograd/engine.h"
#include "core/autograd/node.h"
#include "core/launch.h"
#include "kernels/api/pointwise.h"
#include "tests/models/support.h"
#include "tests/support/devices.h"

namespace heddle {
namespace {

void fill_nan(const Tensor& t) {
  launch(kernels::fill, {t.view(), std::numeric_limits<double>::quiet_NaN()}, t.device());
}
void copy(const Tensor& from, const Tensor& to) {
  launch(kernels::axpby, {.a = from.view(), .out = {to.view(), false}}, to.device());
}

// The weight's values, kept apart. The tensor itself holds NaN meanwhile, and so does every copy that was given out, once it is released.
class Wandering final : public WeightSource {
 public:
  explicit Wandering(const Tensor& slot) : slot_(slot.detach()), kept_(Tensor::empty_like(slot)) {}

  void leave() {  // the values go away
    copy(slot_, kept_);
    fill_nan(slot_);
  }
  void come_home() { copy(kept_, slot_); }

  Tensor acquire(Stream) override {
    ++acquired;
    if (uses_++ == 0) {
      const Tensor before = given_;  // alive, so that the next one is elsewhere
      given_ = Tensor::empty_like(slot_);
      copy(kept_, given_);
      addresses.insert(given_.impl().data);
    }
    return given_;
  }
  void release(Stream) noexcept override {
    ++released;
    if (--uses_ == 0) fill_nan(given_);
  }

  int acquired = 0, released = 0;
  std::set<const std::byte*> addresses;

 private:
  Tensor slot_, kept_, given_;
  int uses_ = 0;
};

struct Trained {
  std::vector<double> losses, grads, values;
  bool operator==(const Trained&) const = default;
};

// Three steps of two micro-batches, plain gradient descent.
Trained train(const TransformerConfig& config, DType dtype, bool wander) {
  const Transformer model(config);
  Arena arena(model, test::device(), dtype);
  test::randomize(arena);
  std::map<std::string, std::shared_ptr<Wandering>> sources;
  for (Parameter p : model.parameters()) {
    if (!wander) break;
    sources[p.name()] = std::make_shared<Wandering>(p.tensor());
    p.set_source(sources[p.name()]);
  }
  Trained trained;
  for (uint64_t step = 0; step < 3; ++step) {
    for (const auto& [name, source] : sources) source->leave();
    arena.begin_step();
    for (uint64_t micro = 0; micro < 2; ++micro) {
      const Tensor tokens = test::random_tokens(2, 6, config.vocab, 10 * step + micro), targets = test::random_tokens(2, 6, config.vocab, 100 + step);
      const Tensor loss = model.loss(tokens, targets, {}, {.scale = 0.05f});
      backward(loss, arena.leaves());
      trained.losses.push_back(loss.item());
    }
    for (const auto& [name, source] : sources) source->come_home();
    NoGradGuard no_grad;
    copy(add(arena.values(), arena.grads(), 1, -0.1), arena.values());
    arena.values().storage()->bump_version();
  }
  trained.grads = arena.grads().to_vector();
  trained.values = arena.values().to_vector();
  for (const auto& [name, source] : sources) {
    INFO(name);
    CHECK(source->acquired >= 3 * 2);
    CHECK(source->acquired == source->released);
    CHECK(source->addresses.size() >= 2);
  }
  return trained;
}

DEVICE_TEST_CASE("weights that exist only while they are used, each time elsewhere, train to the same bits") {
  const auto style = GENERATE(from_range(test::styles()));
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  CAPTURE(style.name, name_of(dtype));
  const Trained plain = train(style.config, dtype, false);
  CHECK(train(style.config, dtype, true) == plain);
  CHECK(plain.losses.front() != plain.losses.back());
}

DEVICE_TEST_CASE("evaluation and generation acquire their weights too") {
  const auto style = GENERATE(from_range(test::styles()));
  CAPTURE(style.name);
  const Transformer model(style.config);
  Arena arena(model, test::device(), DType::f32);
  test::randomize(arena);
  const Tensor tokens = test::random_tokens(2, 6, 7, 1), more = test::random_tokens(2, 1, 7, 2);
  const auto use = [&] {
    std::vector<double> all = model.token_losses(tokens, tokens, {}).to_vector();
    Transformer::Cache cache = model.make_cache(2, 8);
    for (const Tensor& piece : {tokens, more}) {
      const std::vector<double> logits = model.next_logits(piece, cache).to_vector();
      all.insert(all.end(), logits.begin(), logits.end());
    }
    return all;
  };
  const std::vector<double> plain = use();
  std::vector<std::shared_ptr<Wandering>> sources;
  for (Parameter p : model.parameters()) {
    sources.push_back(std::make_shared<Wandering>(p.tensor()));
    sources.back()->leave();
    p.set_source(sources.back());
  }
  CHECK(use() == plain);
  for (const auto& source : sources) CHECK(source->acquired == source->released);
}

}  // namespace
}  // namespace heddle
