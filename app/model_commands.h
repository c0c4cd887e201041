// The command lines of the subcommands that use a trained model. Each fills its options and returns true, or prints --help and returns false.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "app/arguments.h"
#include "train/config/run_config.h"

namespace heddle::app {

struct GenerateOptions {
  std::string path;                     // run directory or one of its checkpoints
  std::string prompt;                   // text; needs a tokenizer. With neither prompt a document begins
  std::vector<std::string> prompt_ids;  // or token ids, "1,2" and repeated
  std::string prompts;                  // or a file with a prompt of text a line
  int64_t samples = 1;                  // texts for each prompt
  int64_t batch = 8;                    // texts at a time, at most
  int64_t max_new_tokens = 128;
  bool greedy = false;  // the most likely token each time; else sampled
  double temperature = 1.0;
  int64_t top_k = 0;       // sample among the k most likely; 0: all
  double top_p = 1.0;      // and among the most likely that sum to p
  bool print_ids = false;  // token ids instead of text
  bool logprobs = false;   // one line per new token: id, log-probability, quoted text
  bool json = false;       // one JSON object a text
  int64_t seed = 42;
  DeviceChoice device = DeviceChoice::automatic;
  GraphsChoice graphs = GraphsChoice::automatic;
  GemmChoice gemm = GemmChoice::automatic;
  int64_t threads = 0;

  static std::span<const Option<GenerateOptions>> options();
  // Combinations that cannot work: Error(usage).
  void validate() const;
  // prompt_ids as numbers. Throws Error(usage) on what is no id.
  std::vector<int32_t> prompt_tokens() const;
};

struct EvalOptions {
  std::string path;               // run directory or one of its checkpoints
  std::vector<std::string> data;  // globs of token shards
  int64_t tokens = 0;             // score exactly the first this many, all when there are fewer; 0: all
  int64_t stride = 0;             // targets a window scores; the rest of it is context; 0: half the sequence length
  int64_t batch = 8;              // sequences at a time, at most
  std::string tokenizer;          // tokenizer.json of shards that no dataset.json records
  bool json = false;              // one JSON object instead of a line
  DeviceChoice device = DeviceChoice::automatic;
  PrecisionChoice precision = PrecisionChoice::automatic;
  GraphsChoice graphs = GraphsChoice::automatic;
  GemmChoice gemm = GemmChoice::automatic;
  int64_t threads = 0;

  static std::span<const Option<EvalOptions>> options();
  void validate() const;  // Error(usage)
};

struct InspectArguments {
  std::string path;  // run or checkpoint directory, .safetensors file, token shard, data set or tokenizer
  bool verify = false, digest = false, details = false;
};

// What the commands do. They print to standard output and return the exit code; Error.
int generate(const GenerateOptions& options);
int evaluate(const EvalOptions& options);

bool parse_generate(Args args, GenerateOptions& options);
bool parse_eval(Args args, EvalOptions& options);
bool parse_inspect(Args args, InspectArguments& arguments);

}  // namespace heddle::app
