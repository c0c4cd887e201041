// What a configuration trains with: the optimizer and its schedule, the same for a run, a bench and a dry run.
#pragma once

#include <memory>

#include "core/arena.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "train/config/run_config.h"

namespace heddle {

// The optimizer that `config` (resolved) names, over the parameters in `arena`, which must outlive it.
std::unique_ptr<Optimizer> make_optimizer(const RunConfig& config, Arena& arena);
// The factor on its learning rates, over config.steps.
Schedule make_schedule(const RunConfig& config);

}  // namespace heddle
