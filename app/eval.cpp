#include "app/command.h"
#include "app/model_commands.h"
#include "train/evaluate.h"

namespace heddle::app {
namespace {

constexpr CommandHelp kHelp = {"eval", "RUN|DIR --data GLOB... [flags]",
                               "Loss, perplexity and bits per byte of a trained model on token shards. [x] is the default.",
                               "  heddle eval run --data 'shards/val_*.bin'\n"
                               "  heddle eval run --data 'shards/val_*.bin' --tokens 1M --json"};

}  // namespace

bool parse_eval(Args args, EvalOptions& options) {
  if (!parse_arguments(kHelp, bind_options(EvalOptions::options(), options), args)) return false;
  options.validate();
  return true;
}

int eval_command(Args args) {
  EvalOptions options;
  return parse_eval(args, options) ? evaluate(options) : 0;
}

}  // namespace heddle::app
