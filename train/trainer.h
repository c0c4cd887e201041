// One optimizer step: micro-steps forward and backward, reduction over ranks, clipping, update.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "core/arena.h"
#include "core/tensor.h"
#include "data/loader.h"
#include "models/transformer.h"
#include "optim/grad_norm.h"
#include "optim/optimizer.h"
#include "parallel/communicator.h"
#include "parallel/grad_buckets.h"

namespace heddle {

// Fills one micro-step's batch of this rank, micro_step in [0, micro_steps).
using FillBatch = std::function<void(int64_t micro_step, const BatchView& into)>;

struct StepPlan {
  int64_t micro_steps = 1;    // of this rank
  int64_t valid_targets = 0;  // of the whole step, over all ranks: what the loss divides by
  float lr = 1;               // the schedule's factor
  float clip_norm = 0;        // <= 0: none
  float max_grad_norm = 0;    // the update is withheld above it; <= 0: never
  float max_loss = 0;         // the same of the step's loss
  float z_loss = 0;
};

struct StepReport {
  double loss = 0;       // mean negative log likelihood of the step's valid targets, nats; z-loss is not in it
  double grad_norm = 0;  // before clipping
  bool applied = true;   // false: withheld, nothing changed
  bool finite = true;
};

class Trainer {
 public:
  struct Options {
    int64_t batch = 1, seq = 1;  // of a micro-step on this rank
    bool document_mask = true;
    // Gradients of micro-steps are combined by a balanced binary tree over their global number, on ranks and between them, instead of being added
    // in turn: the result does not depend on how micro-steps are split over ranks.
    bool deterministic = false;
  };
  Trainer(Transformer& model, Arena& arena, Optimizer& optimizer, Communicator& comm, Options options);

  // `stop` is asked after each fill, on all ranks alike: what a rank learns of its data there, it can tell the others. nullopt: it said so; nothing
  // has changed, the step can be run again.
  std::optional<StepReport> step(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop = {});

  // Counters that a resumed run continues: adam_t, skipped, step.
  StepState counters() const { return control_.get(); }
  void set_counters(uint64_t step, uint64_t adam_t, uint64_t skipped);

 private:
  // What to go backward from; nll_ is its loss. nullopt: `stop` said so.
  std::optional<Tensor> micro_step(int64_t index, const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop);
  // Both fill the gradients and loss_, unless `stop` says so: false.
  bool run_in_order(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop);
  bool run_as_tree(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop);

  Transformer& model_;
  Arena& arena_;
  Optimizer& optimizer_;
  Communicator& comm_;
  Options options_;
  Device device_;
  StepControl control_;
  GradBuckets buckets_;
  std::vector<Tensor> leaves_;
  Tensor tokens_, targets_, document_start_;  // (B, T)
  Tensor nll_, loss_;                         // () f32: shares of the step's mean loss, of this micro-step and of all so far
  std::vector<int32_t> staging_;              // host side of the batch where the device is not the CPU
};

}  // namespace heddle
