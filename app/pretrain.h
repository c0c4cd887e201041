// `heddle pretrain`: from the command line to a RunConfig.
#pragma once

#include "app/arguments.h"
#include "train/config/run_config.h"

namespace heddle::app {

struct PretrainArguments {
  RunConfig config;
  bool print_config = false;
  bool help = false;  // --help was asked for and printed
};

// `environment`: "NAME=value" strings.
PretrainArguments parse_pretrain(Args args, std::span<const std::string> environment);

}  // namespace heddle::app
