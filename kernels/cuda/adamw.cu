// The CUDA candidate of adamw: f32 gradients, masters and moments; values in f32 or bf16.
#include "kernels/cuda/adamw.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const AdamWArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return args.grad.dtype == DType::f32 ? Refusal() : refused("grad must be f32, not ", args.grad);
}

void run(const AdamWArgs& args, Stream stream) {
  if (args.value.dtype == DType::bf16) {
    launch_adamw(adamw_params<bf16>(args), stream);
  } else {
    launch_adamw(adamw_params<float>(args), stream);
  }
}

}  // namespace

void register_adamw() {
  adamw.add(DeviceType::cuda, {"arena_blocks", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
