// A small training session without files, for tests that reach into single steps.
#pragma once

#include <cmath>
#include <memory>
#include <string>

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
  Session(bool muon, DType dtype, Communicator& comm, bool deterministic = false)
      : comm_(comm),
        loader_((use_threads(1), loader_options())),
        model_((kernels::register_cpu_kernels(), small_model())),
        arena_(model_, Device{}, dtype),
        optimizer_((randomize(arena_, 0.1), muon ? make_muon(arena_, {}, {}) : make_adamw(arena_, {.lr = 0.01f}))),
        trainer_(next_token_objective(model_), arena_, *optimizer_, comm,
                 {.batch = 2, .seq = kSeq, .document_mask = true, .deterministic = deterministic}) {
    optimizer_->add_state(state_);
  }
  StepState step(float clip_norm, float max_loss = 0) {
    StepPlan plan;
    if (max_loss > 0) {
      StepState kept = trainer_.kept();
      kept.spikes = held_at(0, max_loss);
      trainer_.go_on_from(kept);
      plan.spike_z = kHairTrigger;
    }
    plan.micro_steps = 2;
    const auto samples = static_cast<uint64_t>(4 * comm_.size());
    plan.valid_targets = loader_.valid_targets(first_, samples);
    plan.clip_norm = clip_norm;
    const uint64_t first = first_ + static_cast<uint64_t>(4 * comm_.rank());
    first_ += samples;
    return *trainer_.step(plan, [&](int64_t m, const BatchView& into) { loader_.fill(first + static_cast<uint64_t>(2 * m), into); });
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

 private:
  static constexpr int64_t kSeq = 32;
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
