// What training would do, without training: `heddle pretrain --print-config` and `--dry-run`. The run in --out, if there is one, the launch and the
// data count as they would in training; no file is touched. Errors are those of a start.
#pragma once

#include <cstdint>

#include "train/config/run_config.h"

namespace heddle {

// The resolved configuration as a config file, on standard output. Without a model, what was stated and the defaults.
void print_config(const RunConfig& given);

// That, then what each rank will take of memory, the disk that checkpoints need, epochs, and how long it will take from a step measured on this
// machine.
// --world N plans for N ranks instead of those of the launch.
void dry_run(const RunConfig& given);

}  // namespace heddle
