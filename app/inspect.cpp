#include "train/checkpoint/inspect.h"

#include <iostream>

#include "app/command.h"
#include "app/model_commands.h"
#include "data/shard.h"
#include "kernels/api/check.h"

namespace heddle::app {
namespace {

constexpr CommandHelp kHelp = {
    "inspect", "PATH [--verify] [--digest]",
    "Says what a run directory, a checkpoint directory, a .safetensors file or a token shard holds. Nothing on the disk is\n"
    "changed, and no lock is taken: a run may be inspected while it trains.",
    "  heddle inspect run\n"
    "  heddle inspect run --digest            # equal digests: equal weights, optimizer state and counters, however sliced\n"
    "  heddle inspect run --verify            # reads every byte of every checkpoint; 65 if one is damaged\n"
    "  heddle inspect shards/train_000000.bin"};

// "tokens 1000000, uint16, largest 50256"; reads the whole shard.
void inspect_shard(const std::string& path) {
  const ShardReader shard(path);
  std::cout << "token shard   " << shard.path() << "\ntokens        " << shard.tokens() << "\ntype          uint" << shard.token_bytes() * 8
            << "\nlargest       " << shard.largest_token() << "\n";
}

}  // namespace

bool parse_inspect(Args args, InspectArguments& arguments) {
  using I = InspectArguments;
  static const std::vector<Option<I>> table = [] {
    std::vector<Option<I>> rows;
    rows.push_back(make_option<I>("PATH", &I::path, "Arguments", "", "run directory, checkpoint directory, .safetensors or token shard").argument());
    rows.push_back(make_option<I>("verify", &I::verify, "Output", "", "read every byte and compare every hash"));
    rows.push_back(make_option<I>("digest", &I::digest, "Output", "",
                                  "print only the step and one SHA-256 over all logical tensors, optimizer state and counters, in name order"));
    return rows;
  }();
  if (!parse_arguments(kHelp, bind_options(std::span<const Option<I>>(table), arguments), args)) return false;
  if (arguments.path.empty()) fail_usage("inspect", "nothing to look at: give a run directory or a file, as in heddle inspect run");
  return true;
}

int inspect_command(Args args) {
  InspectArguments arguments;
  if (!parse_inspect(args, arguments)) return 0;
  if (arguments.path.ends_with(".bin")) {
    if (arguments.digest || arguments.verify) fail_usage("inspect", "--digest and --verify are for runs, checkpoints and .safetensors files");
    inspect_shard(arguments.path);
    return 0;
  }
  const InspectOptions options{.verify = arguments.verify, .digest = arguments.digest};
  return inspect(arguments.path, options, std::cout) ? 0 : static_cast<int>(ExitCode::bad_data);
}

}  // namespace heddle::app
