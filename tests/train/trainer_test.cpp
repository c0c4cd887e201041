// One step: accumulation, the tree of --deterministic, targets that count, memory; and the evaluator.
#include "train/trainer.h"
#include "train/objectives.h"

#include <cmath>
#include <cstring>

#include "core/autograd/engine.h"
#include "infer/evaluator.h"
#include "kernels/api/embedding.h"
#include "tests/models/support.h"
#include "tests/support/compare.h"
#include "tests/support/spikes.h"
#include "tests/support/tensors.h"
#include "tests/train/pretrain_support.h"
#include "train/memory_plan.h"

namespace heddle {
namespace {

constexpr int64_t kSeq = 32;

TransformerConfig small_model() {
  TransformerConfig c{.vocab = 257, .layers = 2, .dim = 32, .heads = 2};
  c.seq = kSeq;
  return c;
}

LoaderOptions loader_options(bool document_mask) {
  LoaderOptions o;
  o.shards = {test::data_set().train()};
  o.seq = kSeq;
  o.document_mask = document_mask;
  return o;
}

struct Session {
  struct Options {
    int64_t batch = 2;
    DType dtype = DType::f32;
    bool deterministic = false, document_mask = true, muon = false;
  };
  Loader loader;
  Transformer model;
  Arena arena;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Control> control = local_control();
  std::unique_ptr<Communicator> comm = local_communicator();
  Trainer trainer;
  Options options;

  explicit Session(const Options& o)
      : loader(loader_options(o.document_mask)),
        model(small_model()),
        arena(model, test::device(), o.dtype),
        optimizer((test::randomize(arena, 0.1), o.muon ? make_muon(arena, {}, {}) : make_adamw(arena, {.lr = 0.01f}))),
        trainer(next_token_objective(model), arena, *optimizer, *comm,
                {.batch = o.batch, .seq = kSeq, .document_mask = o.document_mask, .deterministic = o.deterministic}),
        options(o) {}

  FillBatch fill(uint64_t first) {
    return [this, first](int64_t m, const BatchView& into) { loader.fill(first + static_cast<uint64_t>(m * options.batch), into); };
  }
  StepState step(uint64_t first, int64_t samples, StepPlan plan = {}) {
    plan.micro_steps = samples / options.batch;
    plan.valid_targets = loader.valid_targets(first, static_cast<uint64_t>(samples));
    plan.clip_norm = 1;
    return *trainer.step(plan, fill(first));
  }
};

// The tensors of one batch of `batch` samples from `first` on.
struct Tensors {
  Tensor tokens, targets, start;
  // `source`: a Loader or Windows.
  template <class Source>
  Tensors(Source& source, uint64_t first, int64_t batch) {
    const auto n = static_cast<size_t>(batch * kSeq);
    std::vector<int32_t> rows[3] = {std::vector<int32_t>(n), std::vector<int32_t>(n), std::vector<int32_t>(n)};
    source.fill(first, {batch, kSeq, rows[0].data(), rows[1].data(), rows[2].data()});
    tokens = test::ints(rows[0], {batch, kSeq}), targets = test::ints(rows[1], {batch, kSeq}), start = test::ints(rows[2], {batch, kSeq});
  }
};

// Gradient of samples [first, first + batch) alone, divided by `valid` as a step does.
std::vector<double> gradient_of(Session& s, uint64_t first, int64_t batch, int64_t valid) {
  const Tensors t(s.loader, first, batch);
  StepControl control(test::device());
  StepState state;
  state.loss_scale = 1.0f / static_cast<float>(valid);
  control.set(state);
  s.arena.begin_step();
  backward(s.model.loss(t.tokens, t.targets, t.start, {.step = control.device_state()}), s.arena.leaves());
  return s.arena.grads().to_vector();
}

double largest(const std::vector<double>& values) {
  double most = 0;
  for (double v : values) most = std::max(most, std::abs(v));
  return most;
}

DEVICE_TEST_CASE("four micro-steps of two sequences are one of eight, whatever counts in each") {
  if (!test::has_f64(test::device())) return;
  Session four({.batch = 2, .dtype = DType::f64}), one({.batch = 8, .dtype = DType::f64}), single({.batch = 1, .dtype = DType::f64});
  const uint64_t first = 3;
  const int64_t valid = four.loader.valid_targets(first, 8);
  REQUIRE(four.loader.valid_targets(first, 2) != four.loader.valid_targets(first + 2, 2));  // a mean of means would be another number
  double magnitude = 0;                                                                     // what the sums add: the sequences' own gradients
  for (uint64_t s = 0; s < 8; ++s) magnitude += largest(gradient_of(single, first + s, 1, valid));
  const StepState a = four.step(first, 8), b = one.step(first, 8);
  // The longest path from a weight to its gradient adds this many products, in another order here and there.
  const double terms = 8.0 * kSeq * (4 * 32) * 2;
  CHECK(std::abs(a.loss - b.loss) <= test::gamma(terms, DType::f64) * b.loss);
  const std::vector<double> ga = four.arena.grads().to_vector(), gb = one.arena.grads().to_vector();
  double worst = 0;
  for (size_t i = 0; i < ga.size(); ++i) worst = std::max(worst, std::abs(ga[i] - gb[i]));
  CHECK(worst <= test::gamma(terms, DType::f64) * magnitude);
  CHECK(largest(gb) > 1e6 * test::gamma(terms, DType::f64) * magnitude);  // the bound tells something
  CHECK(std::abs(a.grad_norm - b.grad_norm) <= 0x1p-22 * b.grad_norm);    // stored as f32
}

DEVICE_TEST_CASE("deterministic: gradients of units are combined by the balanced tree over their number, bit by bit") {
  const int64_t units = GENERATE(1, 2, 3, 4, 5, 7, 8);
  CAPTURE(units);
  Session tree({.batch = 2, .deterministic = true}), by_hand({.batch = 2});
  const int64_t valid = tree.loader.valid_targets(0, static_cast<uint64_t>(2 * units));
  std::vector<std::vector<double>> unit;
  for (int64_t u = 0; u < units; ++u) unit.push_back(gradient_of(by_hand, static_cast<uint64_t>(2 * u), 2, valid));
  // The left subtree is the largest full one.
  const std::function<std::vector<double>(int64_t, int64_t)> sum = [&](int64_t begin, int64_t n) {
    if (n == 1) return unit[static_cast<size_t>(begin)];
    int64_t half = 1;
    while (half * 2 < n) half *= 2;
    std::vector<double> left = sum(begin, half);
    const std::vector<double> right = sum(begin + half, n - half);
    for (size_t i = 0; i < left.size(); ++i) left[i] = static_cast<float>(left[i]) + static_cast<float>(right[i]);
    return left;
  };
  tree.step(0, 2 * units);
  CHECK((tree.arena.grads().to_vector() == sum(0, units)));
}

DEVICE_TEST_CASE("the loss is the mean over the targets that count, within their document when masked") {
  std::vector<double> losses;
  for (bool mask : {true, false}) {
    CAPTURE(mask);
    Session s({.batch = 2, .document_mask = mask});
    const uint64_t first = 5;
    const int64_t samples = 6, valid = s.loader.valid_targets(first, static_cast<uint64_t>(samples));
    double nats = 0;
    int64_t counted = 0;
    for (int64_t b = 0; b < samples; ++b) {
      const Tensors t(s.loader, first + static_cast<uint64_t>(b), 1);
      for (double loss : s.model.token_losses(t.tokens, t.targets, mask ? t.start : Tensor()).to_vector()) nats += loss;
      for (double target : t.targets.to_vector()) counted += target >= 0;
    }
    CHECK(counted == valid);
    CHECK((counted < samples * kSeq) == mask);
    const StepState report = s.step(first, samples);
    // Every term is positive; a logit is a sum of 32 products, and 257 exponentials follow.
    CHECK(std::abs(report.loss - nats / static_cast<double>(valid)) <= test::gamma(samples * kSeq + 32 + 257, DType::f32) * report.loss);
    losses.push_back(report.loss);
  }
  CHECK(std::abs(losses[0] - losses[1]) > 1e-3);
}

DEVICE_TEST_CASE("z-loss is part of what is minimised and not of the loss that is reported") {
  const bool deterministic = GENERATE(false, true);
  Session with({.batch = 2, .deterministic = deterministic}), without({.batch = 2, .deterministic = deterministic});
  StepPlan plan;
  plan.z_loss = 0.5f;
  const StepState a = with.step(0, 4, plan), b = without.step(0, 4);
  CHECK(a.loss == b.loss);
  CHECK(a.grad_norm > 1.2 * b.grad_norm);  // it does pull
}

DEVICE_TEST_CASE("an update whose loss is above the limit is withheld, one at the limit is not") {
  const bool deterministic = GENERATE(false, true);
  Session s({.batch = 2, .deterministic = deterministic}), same({.batch = 2, .deterministic = deterministic});
  const auto limit = static_cast<float>(same.step(0, 4).loss);
  const std::vector<double> before = s.arena.values().to_vector();
  const auto step_held_at = [&](float most) {
    StepState kept = s.trainer.kept();
    kept.spikes = test::held_at(0, most);
    s.trainer.go_on_from(kept);
    StepPlan plan;
    plan.spike_z = test::kHairTrigger;
    return s.step(0, 4, plan);
  };
  const StepState withheld = step_held_at(std::nextafter(limit, 0.0f));
  CHECK(!withheld.apply);
  CHECK(withheld.finite);
  CHECK((s.arena.values().to_vector() == before));
  CHECK(s.trainer.kept().adam_t == 0);
  CHECK(s.trainer.kept().skipped == 1);
  CHECK(step_held_at(limit).apply);
  CHECK((s.arena.values().to_vector() == same.arena.values().to_vector()));
}

TEST_CASE("the memory plan knows the masters to the byte") {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    for (const bool muon : {false, true}) {
      CAPTURE(name_of(dtype), muon);
      RunConfig config;
      config.seq = kSeq, config.batch = 2, config.total_batch_tokens = kSeq * 2;
      config.optimizer = muon ? OptimizerChoice::muon : OptimizerChoice::adamw;
      Session s({.dtype = dtype, .muon = muon});
      const MemoryPlan plan = plan_memory(config, s.model.config(), s.arena.layout(), dtype);
      const Tensor& masters = s.optimizer->masters();
      CHECK(plan.masters == (masters.same(s.arena.values()) ? 0 : 4.0 * static_cast<double>(masters.numel())));
      CHECK(plan.parameters == static_cast<double>(s.arena.values().numel() * size_of(dtype)));
    }
  }
}

DEVICE_TEST_CASE("the memory plan holds every gradient buffer of a step") {
  for (const bool deterministic : {false, true}) {
    for (const int64_t micro_steps : {1, 2, 3, 4, 5, 8, 16}) {
      CAPTURE(deterministic, micro_steps);
      RunConfig config;
      config.seq = kSeq, config.batch = 1;
      config.total_batch_tokens = kSeq * micro_steps;
      config.deterministic = deterministic;
      Session s({.batch = 1, .deterministic = deterministic});
      s.step(0, micro_steps);
      reset_peaks(test::device());
      s.step(0, micro_steps);
      const MemoryPlan plan = plan_memory(config, s.model.config(), s.arena.layout(), DType::f32);
      const auto taken = static_cast<double>(memory_stats(test::device()).peak[static_cast<size_t>(MemoryTag::gradient)]);
      CHECK(taken >= plan.gradients);
      const double one = 4.0 * static_cast<double>(s.arena.layout().trainable().size());  // of the buffers, each of which the allocator rounds up
      CHECK(taken <= plan.gradients * (one + 4096) / one);
    }
  }
}

DEVICE_TEST_CASE("a step without any target that counts has no loss, no gradient and stays finite") {
  Session s({.batch = 2});
  StepPlan plan;
  const std::optional<StepState> report = s.trainer.step(plan, [](int64_t, const BatchView& into) {
    for (int64_t i = 0; i < into.batch * into.seq; ++i) into.tokens[i] = 1, into.targets[i] = -1, into.document_start[i] = 0;
  });
  REQUIRE(report.has_value());
  CHECK(report->loss == 0);
  CHECK(report->grad_norm == 0);
  CHECK(report->finite);
}

DEVICE_TEST_CASE("a stop between micro-steps gives no report and changes no state") {
  for (bool deterministic : {false, true}) {
    Session stopped({.batch = 2, .deterministic = deterministic}), straight({.batch = 2, .deterministic = deterministic});
    const std::vector<double> before = stopped.arena.values().to_vector();
    StepPlan plan;
    plan.micro_steps = 4;
    plan.valid_targets = stopped.loader.valid_targets(0, 8);
    plan.clip_norm = 1;
    int asked = 0;
    CHECK(!stopped.trainer.step(plan, stopped.fill(0), [&] { return ++asked == 2; }).has_value());
    CHECK((stopped.arena.values().to_vector() == before));
    CHECK(stopped.trainer.kept().step == 0);
    CHECK(stopped.trainer.kept().adam_t == 0);
    // The same step again is the step it would have been.
    const StepState again = stopped.step(0, 8), once = straight.step(0, 8);
    CHECK(again.loss == once.loss);
    CHECK(again.grad_norm == once.grad_norm);
    CHECK((stopped.arena.values().to_vector() == straight.arena.values().to_vector()));
  }
}

DEVICE_TEST_CASE("after three steps a trainer asks the device for nothing") {
  for (bool deterministic : {false, true}) {
    for (bool muon : {false, true}) {
      CAPTURE(deterministic, muon);
      // The simulated machine takes seconds for its bf16 products, thread by thread.
      const bool bf16 = muon && !runtime(test::device().type).simulated();
      Session s({.batch = 2, .dtype = bf16 ? DType::bf16 : DType::f32, .deterministic = deterministic, .muon = muon});
      WindowOptions windows;
      windows.shards = {test::data_set().val()};
      windows.seq = kSeq;
      Evaluator evaluator(windows, 2, 0, nullptr, test::device(), *s.control);
      uint64_t asked = 0;
      size_t live = 0;
      for (uint64_t step = 1; step <= 12; ++step) {
        s.step(step * 8, 8);
        if (step % 3 == 0) evaluator.run(s.model);
        const MemoryStats now = memory_stats(test::device());
        if (step == 3) asked = now.device_allocations, live = now.live_total;
        if (step > 3) {
          CHECK(now.device_allocations == asked);
          CHECK(now.live_total == live);
        }
      }
      CHECK(s.trainer.kept().adam_t == 12);
    }
  }
}

TEST_CASE("the evaluator computes no more sequences than there are, shared evenly over its rounds and ranks") {
  Session s({.batch = 2});
  WindowOptions options;
  options.shards = {test::data_set().val()};
  options.seq = kSeq;
  const auto rows = static_cast<int64_t>(Windows(options).rows());
  REQUIRE(rows > 7);
  static int64_t computed;
  const test::Intercept<kernels::EmbeddingForwardArgs> count(
      kernels::embedding_forward, [](const kernels::EmbeddingForwardArgs& args) { computed += args.tokens.numel() / kSeq; }, nullptr);
  for (const int64_t batch : {int64_t{1}, int64_t{2}, rows - 1, rows, rows + 1, int64_t{65536}}) {
    Evaluator evaluator(options, batch, 0, nullptr, test::device(), *s.control);
    const int64_t rounds = (rows + batch - 1) / batch;
    CAPTURE(rows, batch, rounds);
    computed = 0;
    REQUIRE(evaluator.run(s.model).has_value());
    CHECK(evaluator.batch() <= batch);
    CHECK(computed == rounds * evaluator.batch());
    CHECK(computed >= rows);
    CHECK(computed < rows + rounds);
  }
}

DEVICE_TEST_CASE("the evaluator's nats are a plain sum over the first targets, for any batch and limit") {
  Session s({.batch = 2});
  WindowOptions options;
  options.shards = {test::data_set().val()};
  options.seq = kSeq;
  options.stride = 16;
  const Windows windows(options);
  REQUIRE(windows.rows() > 7);
  const Tokenizer tokenizer = Tokenizer::load(test::data_set().folder / "shards/tokenizer.json");
  std::vector<double> target_nats;  // in the order in which they are scored
  for (uint64_t row = 0; row < windows.rows(); ++row) {
    const Tensors t(windows, row, 1);
    const std::vector<double> losses = s.model.token_losses(t.tokens, t.targets, t.start).to_vector(), targets = t.targets.to_vector();
    for (size_t i = 0; i < losses.size(); ++i) {
      if (targets[i] >= 0) target_nats.push_back(losses[i]);
    }
  }
  for (int64_t batch : {1, 3, 8}) {
    for (int64_t limit : {0, 1, 100}) {
      CAPTURE(batch, limit);
      Evaluator evaluator(options, batch, limit, &tokenizer, test::device(), *s.control);
      const EvalResult got = *evaluator.run(s.model);
      const size_t scored = limit == 0 ? target_nats.size() : static_cast<size_t>(limit);
      REQUIRE(scored <= target_nats.size());
      double nats = 0;
      for (size_t i = 0; i < scored; ++i) nats += target_nats[i];
      CHECK(got.tokens == scored);
      CHECK(got.bytes == scored);  // its tokens are bytes
      CHECK(std::abs(got.nats - nats) <= test::gamma(32 + 257, DType::f32) * nats);
      CHECK(std::abs(got.loss() - nats / static_cast<double>(scored)) <= test::gamma(32 + 257, DType::f32) * got.loss());
      // Recorded, each batch has the same bits.
      std::vector<std::string> told;
      evaluator.record_batches([&](const std::string& line) { told.push_back(line); });
      CHECK(evaluator.run(s.model)->nats == got.nats);
      CHECK(evaluator.run(s.model)->nats == got.nats);
      CHECK(told == std::vector<std::string>());
    }
  }
  int asked = 0;
  Evaluator evaluator(options, 1, 0, nullptr, test::device(), *s.control);
  CHECK(!evaluator.run(s.model, [&] { return ++asked == 3; }).has_value());
  CHECK(asked == 3);
}

DEVICE_TEST_CASE("batches of evaluation that were recorded score what training makes of the model") {
  Session s({.batch = 2});
  WindowOptions options;
  options.shards = {test::data_set().val()};
  options.seq = kSeq;
  Evaluator recorded(options, 3, 0, nullptr, test::device(), *s.control), direct(options, 3, 0, nullptr, test::device(), *s.control);
  REQUIRE(recorded.rows() > 9);
  std::vector<std::string> told;
  recorded.record_batches([&](const std::string& line) { told.push_back(line); });
  double last = 0;
  for (uint64_t step = 0; step < 3; ++step) {
    const double nats = direct.run(s.model)->nats;
    CHECK(recorded.run(s.model)->nats == nats);
    CHECK(nats != last);
    last = nats;
    s.step(4 * step, 4);
  }
  CHECK(told == std::vector<std::string>());
}

}  // namespace
}  // namespace heddle
