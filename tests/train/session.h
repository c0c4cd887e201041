// A small training session without files, for tests that reach into single steps.
#pragma once

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/autograd/engine.h"
#include "tests/models/support.h"
#include "tests/support/spikes.h"
#include "tests/train/pretrain_support.h"
#include "train/config/shape.h"
#include "train/objectives.h"
#include "train/threads.h"
#include "train/trainer.h"

namespace heddle::test {

// A model in training on the ranks of `comm`, two micro-steps of two sequences on each, and the digest of all that a checkpoint of it would hold,
// counters apart.
class Session {
 public:
  Session(bool muon, DType dtype, Communicator& comm, bool deterministic = false, bool sharded = false, std::optional<DType> wire = {})
      : comm_(comm),
        loader_((use_threads(1), loader_options())),
        model_((kernels::register_cpu_kernels(), small_model())),
        arena_(model_,
               Layout(model_, {.dp = comm.size(), .dp_rank = comm.rank()},
                      {.whole_matrices = muon, .fixed_cells = deterministic, .bucket_elements = kBucket}),
               Device{}, dtype),
        optimizer_(
            (randomize(arena_, 0.1), muon ? make_muon(arena_, {}, {}, {}, owned(sharded)) : make_adamw(arena_, {.lr = 0.01f}, {}, owned(sharded)))),
        trainer_(next_token_objective(model_), arena_, *optimizer_, comm,
                 {.batch = 2, .seq = kSeq, .document_mask = true, .deterministic = deterministic, .sharded = sharded, .wire = wire}) {
    optimizer_->add_state(state_);
  }
  // `units` micro-steps on this rank.
  StepState step(float clip_norm, float max_loss = 0, int64_t units = 2) {
    StepPlan plan;
    if (max_loss > 0) {
      StepState kept = trainer_.kept();
      kept.spikes = held_at(0, max_loss);
      trainer_.go_on_from(kept);
      plan.spike_z = kHairTrigger;
    }
    plan.micro_steps = units;
    const auto samples = static_cast<uint64_t>(2 * units * comm_.size());
    plan.valid_targets = loader_.valid_targets(first_, samples);
    plan.clip_norm = clip_norm;
    const uint64_t first = first_ + static_cast<uint64_t>(2 * units * comm_.rank());
    first_ += samples;
    return *trainer_.step(plan, [&](int64_t m, const BatchView& into) { loader_.fill(first + static_cast<uint64_t>(2 * m), into); });
  }
  // Of every gradient, the sum over the step's micro-steps of how large it is; of a session alone, before the step.
  std::vector<double> magnitudes(int64_t units) {
    std::vector<double> sums(static_cast<size_t>(arena_.layout().trainable().size()), 0.0);
    const auto valid = static_cast<float>(loader_.valid_targets(first_, static_cast<uint64_t>(2 * units)));
    for (int64_t u = 0; u < units; ++u) {
      OwnedBatch batch(2, kSeq);
      loader_.fill(first_ + static_cast<uint64_t>(2 * u), batch.view);
      const auto tensor = [](const std::vector<int32_t>& numbers) { return Tensor::from(numbers, {2, kSeq}); };
      arena_.begin_step();
      backward(model_.loss(tensor(batch.tokens), tensor(batch.targets), tensor(batch.document_start), {.scale = 1 / valid}), arena_.leaves());
      const std::vector<double> unit = arena_.grads().to_vector();
      for (size_t i = 0; i < unit.size(); ++i) sums[i] += std::abs(unit[i]);
    }
    return sums;
  }
  std::string state() const { return digest(state_); }
  bool all_finite() const {
    for (const StateDict::Entry& e : state_.tensors) {
      const float* const values = reinterpret_cast<const float*>(e.data.data);
      for (int64_t i = 0; i < e.data.numel(); ++i) {
        if (!std::isfinite(values[i])) return false;
      }
    }
    return true;
  }
  const Trainer& trainer() const { return trainer_; }
  Trainer& trainer() { return trainer_; }
  const StateDict& tensors() const { return state_; }
  const Arena& arena() const { return arena_; }

  static constexpr int64_t kSeq = 32, kBucket = 1;  // no two groups share a bucket

 private:
  std::optional<std::vector<Range>> owned(bool sharded) const { return sharded ? std::optional(arena_.layout().owned(comm_.rank())) : std::nullopt; }
  static TransformerConfig small_model() {
    TransformerConfig c{.vocab = 257, .layers = 2, .dim = 32, .heads = 2};
    c.seq = kSeq;
    return c;
  }
  static LoaderOptions loader_options() {
    LoaderOptions o;
    o.shards = {data_set().train()};
    o.seq = kSeq;
    return o;
  }
  Communicator& comm_;
  Loader loader_;
  Transformer model_;
  Arena arena_;
  std::unique_ptr<Optimizer> optimizer_;
  Trainer trainer_;
  StateDict state_;
  uint64_t first_ = 0;
};

}  // namespace heddle::test
