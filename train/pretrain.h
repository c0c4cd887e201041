// The pretraining run behind `heddle pretrain`.
#pragma once

#include <functional>

#include "train/config/run_config.h"
#include "train/learner.h"

namespace heddle {

// Trains as `config` says and returns the exit code: 0 when the horizon is reached; after a checkpoint 75 when stopped by SIGTERM, SIGHUP, SIGUSR1 or
// the time limit, 128 + SIGINT when by SIGINT. Collective: every rank of the job calls it with the same configuration. Throws Error.
int pretrain(RunConfig config);
// The same with a model of the program's own, which `make` makes: the options of the model have no meaning then.
// `elapsed`: seconds since the start, by which --minutes counts; absent: the steady clock's since the call.
int pretrain(RunConfig config, const MakeLearner& make, std::function<double()> elapsed = {});

}  // namespace heddle
