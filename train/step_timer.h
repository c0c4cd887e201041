// A training session on random tokens, for what times whole steps: benches, and dry runs that say how long training will take.
#pragma once

#include <memory>

#include "core/arena.h"
#include "models/transformer.h"
#include "optim/optimizer.h"
#include "parallel/communicator.h"
#include "train/config/run_config.h"
#include "train/trainer.h"

namespace heddle {

// The run that a resolved configuration describes: its model, optimizer and micro-step.
struct StepTimer {
  // Error(out_of_memory) when it does not fit, with the message of `op`.
  // `comm`: the data-parallel ranks; absent: one. `documents`: attention stays within documents where the configuration says so.
  StepTimer(const RunConfig& config, const TransformerConfig& shape, std::string_view op, std::unique_ptr<Communicator> comm = nullptr,
            bool documents = false);
  double step(int64_t micro_steps = 1);                                 // one optimizer step; seconds until the device is done
  int64_t tokens() const { return run_config.batch * run_config.seq; }  // of a micro-step

  RunConfig run_config;
  Device device;
  Transformer model;
  Arena arena;
  std::unique_ptr<Communicator> comm;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Trainer> trainer;
  double loss = 0;  // of the last step
};

}  // namespace heddle
