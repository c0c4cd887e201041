// The CUDA candidate of sample.
#include "kernels/cuda/sample.cuh"

#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const SampleArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return row_limits("logits", args.logits);
}

void run(const SampleArgs& args, Stream stream) {
  if (args.logits.size(0) == 0) return;
  args.logits.dtype == DType::bf16 ? launch_sample<bf16>(args, stream) : launch_sample<float>(args, stream);
}

}  // namespace

void register_sample() {
  sample.add(DeviceType::cuda, {"radix_select", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
