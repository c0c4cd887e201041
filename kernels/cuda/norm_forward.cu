// The CUDA candidate of norm_forward.
#include "kernels/cuda/norm_forward.cuh"

#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const NormForwardArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return row_limits("x", args.x);
}

void run(const NormForwardArgs& args, Stream stream) {
  if (args.x.numel() == 0) return;
  args.x.dtype == DType::bf16 ? launch_norm_forward<bf16>(args, 0, stream) : launch_norm_forward<float>(args, 0, stream);
}

}  // namespace

void register_norm_forward() {
  norm_forward.add(DeviceType::cuda, {"rows", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
