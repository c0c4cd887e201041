// A training session on random tokens, for the benches that time whole steps.
#pragma once

#include <memory>
#include <vector>

#include "core/arena.h"
#include "models/transformer.h"
#include "optim/optimizer.h"
#include "parallel/communicator.h"
#include "train/config.h"
#include "train/trainer.h"

namespace heddle::app {

struct BenchSession {
  explicit BenchSession(RunConfig config);
  double step();  // one optimizer step of one micro-step; seconds until the device is done
  int64_t tokens() const { return run_config.batch * run_config.seq; }

  RunConfig run_config;
  Device device;
  Transformer model;
  Arena arena;
  std::unique_ptr<Communicator> comm;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Trainer> trainer;
  double loss = 0;  // of the last step
};

double median(std::vector<double> values);

}  // namespace heddle::app
