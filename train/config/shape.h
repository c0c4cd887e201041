// From options to a model's configuration, its dtype and its device.
#pragma once

#include <cstdint>

#include "core/device.h"
#include "models/config.h"
#include "train/config/run_config.h"

namespace heddle {

// The model that `config` describes: a preset or depth, overruled by every field the user set; `vocab` comes from the data unless set. Writes each
// derived value back into `config` (mark_derived), so that config.toml and --print-config show it. Throws Error(usage).
TransformerConfig model_config(RunConfig& config, int64_t vocab);

// The dtype of values and activations on a device: automatic is bf16 on a GPU, fp32 on a CPU.
DType compute_dtype(PrecisionChoice precision, Device device);
// automatic: a GPU when there is one. Of several ranks on a host each has its own. Throws Error(no_device).
Device choose_device(DeviceChoice choice);

}  // namespace heddle
