#include "app/command.h"

namespace heddle::app {
namespace {

constexpr Command kCommands[] = {
    {"tokenize", "text files to token shards", false, tokenize_command},
    {"pretrain", "train a model on token shards, from the start or from the newest checkpoint", true, pretrain_command},
    {"supervise", "run a training job, and start it again when it fails", false, supervise_command},
    {"generate", "text from a trained model", false, generate_command},
    {"eval", "loss and bits per byte of a trained model on held-out shards", true, eval_command},
    {"inspect", "what a run, a checkpoint or a file holds; digests and verification", false, inspect_command},
    {"bench", "measure training steps and ops on this machine", true, bench_command},
    {"doctor", "what this machine and this build have, in one paste", true, doctor_command},
};

}  // namespace

std::span<const Command> commands() {
  return kCommands;
}

}  // namespace heddle::app
