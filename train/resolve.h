// From what was stated to what is done: the options that follow from others.
#pragma once

#include "models/transformer.h"
#include "train/config.h"

namespace heddle {

// --depth leaves rate, schedule, optimizer and horizon open: about 20 tokens a parameter (Hoffmann et al. 2022), and the plain values of small
// models.
void derive_recipe(RunConfig& config, const TransformerConfig& model);
// Options of later versions. Error(usage).
void refuse_unbuilt(const RunConfig& config);

}  // namespace heddle
