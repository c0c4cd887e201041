// The one way from what was stated to what is done: fills the options that follow from others, then judges the whole.
#pragma once

#include <cstdint>

#include "models/config.h"
#include "train/config/run_config.h"

namespace heddle {

// What is known beside the options.
struct RunFacts {
  int64_t ranks = 1;              // of the job
  int64_t vocab = 0;              // tokens of the data or its tokenizer; 0: not known yet
  bool goes_on = false;           // a checkpoint says what was trained
  uint64_t step = 0, tokens = 0;  // trained so far, as far as known
};

// Completes `config` in place, each value that follows marked derived: the model's sizes (from a preset or --depth), optimizer, rates and horizon of
// --depth, ranks, tokens of a step, the steps that --tokens still pays for. Drops what no longer acts (validate()). Called again when more is known,
// it gives what one call with all facts would have given. Returns the model's shape; as long as no vocabulary is known it has the smallest there is.
// Throws Error(usage).
TransformerConfig resolve(RunConfig& config, const RunFacts& facts);

// The same but for the model, which the program brings itself: ranks, tokens of a step, horizon.
void resolve_run(RunConfig& config, const RunFacts& facts);
// Error(usage) when an option that describes a model was stated.
void require_no_model_options(const RunConfig& config);

// The run in config.out, if there is one, under what this start states: what pretrain goes on with, and what was trained. Reads, touches nothing.
struct SavedRun {
  RunConfig config;
  RunFacts facts;      // goes_on, step, tokens
  std::string folder;  // that its relative paths are seen from; "": there is no such run
};
SavedRun with_saved_run(const RunConfig& config);

// Tokens of a micro-step over all ranks divide those of a step: samples of a step, and micro-steps of each rank. Of a resolved configuration.
int64_t step_samples(const RunConfig& config);
int64_t micro_steps(const RunConfig& config);

}  // namespace heddle
