// Text from a trained model, behind `heddle generate`.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "train/config.h"

namespace heddle {

struct GenerateOptions {
  std::string path;                     // run directory or one of its checkpoints
  std::string prompt;                   // text; needs a tokenizer. With neither prompt a document begins
  std::vector<std::string> prompt_ids;  // or token ids, "1,2" and repeated
  int64_t max_new_tokens = 128;
  bool greedy = false;  // the most likely token each time; else sampled
  double temperature = 1.0;
  int64_t top_k = 0;       // sample among the k most likely; 0: all
  double top_p = 1.0;      // and among the most likely that sum to p
  bool print_ids = false;  // token ids instead of text
  bool logprobs = false;   // one line per new token: id, log-probability, quoted text
  int64_t seed = 42;
  DeviceChoice device = DeviceChoice::automatic;
  int64_t threads = 0;

  static std::span<const Option<GenerateOptions>> options();
  // Combinations that cannot work: Error(usage).
  void validate() const;
  // prompt_ids as numbers. Throws Error(usage) on what is no id.
  std::vector<int32_t> prompt_tokens() const;
};

// Prints to standard output; returns the exit code. Throws Error.
int generate(const GenerateOptions& options);

}  // namespace heddle
