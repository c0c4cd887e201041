// The CUDA candidate of norm_backward.
#include "kernels/cuda/norm_backward.cuh"

#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const NormBackwardArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return row_limits("x", args.x);
}

size_t scratch(const NormBackwardArgs& args) {
  return norm_backward_partials(args).bytes();
}

void run(const NormBackwardArgs& args, Stream stream) {
  check_scratch("norm_backward", args.scratch, scratch(args));
  if (args.x.size(-1) == 0) return;
  args.x.dtype == DType::bf16 ? launch_norm_backward<bf16>(args, stream) : launch_norm_backward<float>(args, stream);
}

}  // namespace

void register_norm_backward() {
  norm_backward.add(DeviceType::cuda, {"rows", refuses, scratch, run});
}

}  // namespace heddle::kernels::cuda
