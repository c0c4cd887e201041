// The command lines of the subcommands that use a trained model. Each fills its options and returns true, or prints --help and returns false.
#pragma once

#include "app/arguments.h"
#include "train/evaluate.h"
#include "train/generate.h"

namespace heddle::app {

struct InspectArguments {
  std::string path;  // run or checkpoint directory, .safetensors file, token shard, data set or tokenizer
  bool verify = false, digest = false, details = false;
};

bool parse_generate(Args args, GenerateOptions& options);
bool parse_eval(Args args, EvalOptions& options);
bool parse_inspect(Args args, InspectArguments& arguments);

}  // namespace heddle::app
