// What a run trains.
#pragma once

#include "models/transformer.h"
#include "train/trainer.h"

namespace heddle {

// The cross entropy of every next token; `model` outlives it.
Objective next_token_objective(const Transformer& model);

}  // namespace heddle
