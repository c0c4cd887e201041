// One optimizer step: micro-steps forward and backward, reduction over ranks, clipping, update. The host queues it and waits for nothing: one copy
// goes up for each micro-step, one comes down at the end.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/arena.h"
#include "core/staging.h"
#include "core/tensor.h"
#include "data/loader.h"
#include "optim/grad_norm.h"
#include "optim/optimizer.h"
#include "parallel/communicator.h"
#include "parallel/grad_buckets.h"
#include "parallel/shared_norm.h"
#include "parallel/value_gather.h"
#include "train/step_graphs.h"

namespace heddle {

// A micro-step's samples in device memory.
struct Batch {
  Tensor tokens, targets;  // (B, T) i32
  Tensor document_start;   // (B, T) i32; undefined when documents do not count
};
// What the loss of a micro-step needs beside it.
struct ObjectiveOptions {
  float z_loss = 0;
  const StepState* step = nullptr;  // its loss_scale is the factor on the sum over targets
  Tensor nll;                       // () receives the share of the step's loss without z-loss
};
// What a step trains: from a batch to the root of backward. A model's next-token loss is one (next_token_objective).
using Objective = std::function<Tensor(const Batch&, const ObjectiveOptions&)>;

// Fills one micro-step's batch of this rank, micro_step in [0, micro_steps).
using FillBatch = std::function<void(int64_t micro_step, const BatchView& into)>;

struct StepPlan {
  int64_t micro_steps = 1;    // of this rank
  int64_t valid_targets = 0;  // of the whole step, over all ranks: what the loss divides by
  float lr = 1;               // the schedule's factor
  float clip_norm = 0;        // <= 0: none
  double spike_z = 0;         // the update is withheld as many deviations above what is usual; <= 0: never
  float z_loss = 0;
};

class Trainer {
 public:
  struct Options {
    int64_t batch = 1, seq = 1;  // of a micro-step on this rank
    bool document_mask = true;
    // Gradients of micro-steps are combined by a balanced binary tree over their global number (parallel/unit_tree.h), on ranks and between them,
    // instead of being added in turn: the result does not depend on how micro-steps are split over ranks. With several ranks the arena's layout has
    // fixed cells.
    bool deterministic = false;
    // ZeRO-1: `optimizer` updates what Layout::owned() gives this rank, from the ranks' sums of that alone, and the values go to all.
    bool sharded = false;
    std::optional<DType> wire;  // of gradients between ranks; not with `deterministic`
    // On a GPU steps are recorded and launched as graphs (train/step_graphs.h). Whatever `objective` queues must be the same for every batch.
    bool graphs = false;
    std::function<void(const std::string&)> tell;  // hears in a line of what was recorded
  };
  // `objective` over parameters of `arena`, whose layout is for the ranks of `comm` where they own parts of it.
  Trainer(Objective objective, Arena& arena, Optimizer& optimizer, Communicator& comm, Options options);

  // Queues a step. `stop` is asked after each fill, on all ranks alike: what a rank learns of its data there, it can tell the others. False: it said
  // so; nothing has changed, the step can be run again.
  bool start(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop = {});
  // What the oldest step came to whose result was not taken yet; the host waits for it. Two may be outstanding, so that the next step is queued
  // before the last one's is looked at. Error(bad_data) when a kernel of this or another rank met data that it cannot use; no rank applied the update
  // then.
  StepState result();
  // Both. nullopt: stopped.
  std::optional<StepState> step(const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop = {});

  // What a run goes on with from a checkpoint: step, adam_t, skipped and spikes of a StepState. Between steps; both wait.
  StepState kept() const { return control_.get(); }
  void go_on_from(const StepState& kept);
  // The weights as they are computed with are whole on this rank for what comes next on the current stream (ZeRO: they may be on their way).
  void join_values();
  // After the optimizer's masters were written from outside, on all ranks: Optimizer::masters_changed(), and all ranks get the values.
  void masters_changed();

 private:
  // A micro-step's samples, with the first the StepInput, on their way into upload_. False: `stop` said so.
  bool upload(int64_t index, const StepPlan& plan, const FillBatch& fill, const std::function<bool()>& stop);
  // All else of a micro-step, which reads upload_: forward and backward, after the last also what all of them come to. Launched again as a graph it
  // finds all that it needs in device memory.
  void compute(int64_t index, const StepPlan& plan);
  void begin_sums(int64_t units);
  // The end of the sums of gradients, the decision from what all ranks found, and the update.
  void update();
  // loss_ <- the sum over the units of all ranks, in the order of their gradients.
  void join_unit_losses(int64_t units);

  Objective objective_;
  Arena& arena_;
  Optimizer& optimizer_;
  Communicator& comm_;
  Options options_;
  Device device_;
  StepControl control_;
  GradBuckets buckets_;
  SharedNorm norm_;
  std::optional<ValueGather> values_;  // sharded
  std::vector<Tensor> leaves_;
  int64_t slots_ = 4;
  std::optional<Staging> staging_;  // [StepInput | tokens | targets | document starts], a slot for each micro-step of a step and one more
  Tensor upload_;                   // the same in device memory
  Batch batch_;                     // views of it
  Tensor nll_, loss_;               // () f32: shares of the step's mean loss, of this micro-step and of all so far
  Tensor unit_losses_;              // (units of all ranks) f32: nll_ of each
  Tensor losses_, faults_;          // (ranks): what every rank's came to; faults_ i32
  StepGraphs graphs_;               // the last: they know the addresses of all that is above
};

}  // namespace heddle
