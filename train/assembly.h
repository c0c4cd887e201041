// What a configuration trains with: the optimizer and its schedule, the same for a run, a bench and a dry run.
#pragma once

#include <memory>

#include "core/arena.h"
#include "core/layout.h"
#include "optim/optimizer.h"
#include "optim/schedule.h"
#include "train/config/run_config.h"
#include "train/trainer.h"

namespace heddle {

// How `config` (resolved) wants the parameters to lie, for this one of its ranks.
Layout make_layout(const RunConfig& config, const Module& module, int dp_rank = 0);
// The optimizer that it names, over the parameters in `arena`, which must outlive it; with ZeRO of what this rank owns alone.
std::unique_ptr<Optimizer> make_optimizer(const RunConfig& config, Arena& arena);
// How it wants to be trained by several ranks, or by one.
Trainer::Options trainer_options(const RunConfig& config);
// The factor on its learning rates, over config.steps.
Schedule make_schedule(const RunConfig& config);

}  // namespace heddle
