#include "train/generate.h"

#include "app/command.h"
#include "app/model_commands.h"

namespace heddle::app {
namespace {

constexpr CommandHelp kHelp = {"generate", "RUN|DIR [--prompt TEXT | --prompt-ids 1,2,...] [flags]",
                               "Continues a prompt, or begins a document, with a trained model. [x] is the default.",
                               "  heddle generate run --prompt 'In the beginning' --max-new-tokens 64 --greedy\n"
                               "  heddle generate run --prompt 'In the beginning' --temperature 0.8 --top-k 50 --seed 7\n"
                               "  heddle generate run --prompt-ids 50256,818 --print-ids --logprobs"};

}  // namespace

bool parse_generate(Args args, GenerateOptions& options) {
  if (!parse_arguments(kHelp, bind_options(GenerateOptions::options(), options), args)) return false;
  options.validate();
  return true;
}

int generate_command(Args args) {
  GenerateOptions options;
  return parse_generate(args, options) ? generate(options) : 0;
}

}  // namespace heddle::app
