// The CUDA candidates of finish_norm and advance_step: one thread, a few hundred bytes; what a launch costs is all they cost.
#include "kernels/api/optimizer.h"
#include "kernels/arch/platform.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

__global__ void __launch_bounds__(1) finish_norm_kernel(StepState* step, const StepFinds found) {
  finish_step(*step, found);
}

__global__ void __launch_bounds__(1) advance_step_kernel(StepState* step) {
  end_step(*step);
}

Refusal refuses_finish(const FinishNormArgs& args) {
  return contradiction(args);
}
void run_finish(const FinishNormArgs& args, Stream stream) {
  HEDDLE_LAUNCH(finish_norm_kernel, 1, 1, 0, stream, args.step, step_finds(args));
}

Refusal refuses_advance(const AdvanceStepArgs& args) {
  return contradiction(args);
}
void run_advance(const AdvanceStepArgs& args, Stream stream) {
  HEDDLE_LAUNCH(advance_step_kernel, 1, 1, 0, stream, args.step);
}

}  // namespace

void register_step_state() {
  finish_norm.add(DeviceType::cuda, {"one_thread", refuses_finish, nullptr, run_finish});
  advance_step.add(DeviceType::cuda, {"one_thread", refuses_advance, nullptr, run_advance});
}

}  // namespace heddle::kernels::cuda
