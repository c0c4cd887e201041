// The pretraining run behind `heddle pretrain`.
#pragma once

#include "train/config.h"

namespace heddle {

// Trains as `config` says and returns the exit code: 0 when the horizon is reached, 75 when stopped by a signal or the time limit after a
// checkpoint. Collective: every rank of the job calls it with the same configuration. Throws Error.
int pretrain(RunConfig config);

}  // namespace heddle
