#include "app/pretrain.h"

#include <unistd.h>

#include <iostream>

#include "app/command.h"
#include "train/dry_run.h"
#include "train/pretrain.h"

namespace heddle::app {
namespace {

constexpr CommandHelp kHelp = {
    "pretrain", "--data GLOB --out RUN (--depth N | --model PRESET | --layers N ...) [flags]",
    "Trains on token shards made by heddle tokenize. Started again on the same --out it continues from the newest checkpoint that verifies. "
    "Counts take k, M, G (powers of 1024) or 1e9. Any flag is also a key of --config FILE (TOML, without the dashes) and a variable "
    "(HEDDLE_TOTAL_BATCH_TOKENS); a flag beats the environment, which beats the file. [x] is the default.",
    "  heddle pretrain --data 'shards/train_*.bin' --val 'shards/val_*.bin' --out run --depth 4 --steps 500\n"
    "  heddle pretrain --config run.toml --lr 6e-4 --time-limit 11h30m   # exits 75 when time is up: start it again\n"
    "  heddle pretrain --out run --resume must                           # all else comes from its checkpoint\n"
    "  mpirun -np 4 heddle pretrain --config run.toml --dp 4\n"
    "  heddle pretrain --config run.toml --print-config                  # every value and where it came from"};

}  // namespace

PretrainArguments parse_pretrain(Args args, std::span<const std::string> environment) {
  PretrainArguments out;
  std::string config_file;
  std::vector<FlagValue> flags;
  std::vector<BoundOption> options;
  options.push_back({{"config", "FILE", "Run", "config file; HEDDLE_CONFIG names one too", false, false, false, ""},
                     [&](std::string_view text, const std::string&) { config_file = text; }});
  options.push_back({{"print-config", "", "Run", "print the configuration as a config file and stop", false, true, false, ""},
                     [&](std::string_view text, const std::string& place) { out.print_config = parse_switch(text, place); }});
  for (const auto& option : RunConfig::options()) {
    options.push_back({option.info(), [&](std::string_view text, const std::string&) {
                         flags.push_back({std::string(option.name), std::string(text)});
                       }});
  }
  if (!parse_arguments(kHelp, options, args)) {
    out.help = true;
    return out;
  }
  out.config = make_run_config(config_file, environment, flags);
  return out;
}

int pretrain_command(Args args) {
  std::vector<std::string> environment;
  for (char** entry = environ; entry && *entry; ++entry) environment.emplace_back(*entry);
  const PretrainArguments parsed = parse_pretrain(args, environment);
  if (parsed.help) return 0;
  if (parsed.print_config) {
    print_config(parsed.config);
    return 0;
  }
  return pretrain(parsed.config);
}

}  // namespace heddle::app
