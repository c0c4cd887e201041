// A run's parts, in the order in which they come to life: directory, data, model, state. The loop (pretrain.cpp) steps through them.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "checkpoint/checkpoints.h"
#include "core/arena.h"
#include "data/loader.h"
#include "data/tokenizer.h"
#include "infer/evaluator.h"
#include "kernels/api/forced_kernels.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "parallel/mesh.h"
#include "train/config/resolve.h"
#include "train/config/run_config.h"
#include "train/learner.h"
#include "train/report/bad_batches.h"
#include "train/report/console.h"
#include "train/spike.h"
#include "train/trainer.h"
#include "train/vendor_kernels.h"

namespace heddle {

class Run {
 public:
  // Opens everything: takes the run directory, resumes the newest checkpoint if there is one, checks that configuration and data fit. Collective.
  // `make`: for a model of the program's own; else the configuration's. `elapsed`: seconds since the start, by which --minutes counts.
  Run(RunConfig config, Mesh& mesh, MakeLearner make, const std::function<double()>& elapsed);

  // What the run directory says of the run beside its state: configuration, shards, tokenizer. Once it is clear that there is something to train.
  void write_files();
  // The state after the last step, written in the background.
  void save();
  // Back to the newest checkpoint at or before `step`, on data after the current cursor; notes what is skipped and why.
  void roll_back(uint64_t step, const std::string& reason);

  bool is_first() const { return control().rank() == 0; }
  Control& control() const { return mesh.control(); }
  std::string file(const char* name) const { return config.out + "/" + name; }
  uint64_t rank_samples() const { return static_cast<uint64_t>(samples / control().size()); }

  RunConfig config;
  Mesh& mesh;
  Device device;
  Console console;
  std::unique_ptr<Checkpoints> checkpoints;
  std::optional<uint64_t> resumed_step;
  std::optional<Tokenizer> tokenizer;
  std::unique_ptr<Loader> loader;
  std::unique_ptr<Evaluator> evaluator;  // absent without --val
  int64_t samples = 0, micro_steps = 1;  // of a step: samples over all ranks, micro-steps of this one
  std::unique_ptr<Learner> learner;
  std::unique_ptr<Arena> arena;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Trainer> trainer;
  Schedule schedule;
  SpikeGuard spikes;
  std::unique_ptr<BadBatchLedger> bad_batches;
  StateDict state;
  uint64_t step = 0, cursor = 0, tokens = 0;  // done: steps, samples consumed and tokens trained over all ranks

 private:
  bool has_begun() const;
  void open_directory();
  RunFacts facts(int64_t vocab) const;
  void complete();
  std::unique_ptr<Learner> make_learner(RunConfig& of, int64_t vocab) const;
  void require_same_model(const Learner& now) const;
  void settle();
  void choose_products(const TransformerConfig& shape);
  void check_memory(int64_t vocab) const;
  void open_data();
  void build();
  void set_horizon_by_clock(const std::function<double()>& elapsed);  // pace.cpp
  void require_same_architecture(const RunConfig& theirs);
  void load_initial_weights();
  void restore();
  void compare_with_saved(const std::string& environment);
  void compare_with_file();
  void take_counters(uint64_t saved_step);
  void describe();

  MakeLearner make_;
  std::optional<Checkpoints::Loaded> found_;
  bool trajectory_changed_ = false;  // by an option that differs from the saved one
  kernels::ForcedKernels forced_kernels_;
  std::optional<VendorKernels> vendor_kernels_;
  bool products_chosen_ = false;
  std::string tokenizer_fingerprint_;  // whose tokens the model learns; "" when nobody says
};

}  // namespace heddle
