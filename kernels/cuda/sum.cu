// The CUDA candidate of sum.
#include "kernels/cuda/sum.cuh"

#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const SumArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  if (args.x.dtype == DType::f64) return refused("f32 and bf16 only, not ", args.x);
  return {};
}

void run(const SumArgs& args, Stream stream) {
  check_scratch("sum", args.scratch, sum_scratch(args));
  check_scratch("sum", args.zeroed, sizeof(uint32_t));
  args.x.dtype == DType::bf16 ? launch_sum<bf16>(args, stream) : launch_sum<float>(args, stream);
}

}  // namespace

void register_sum() {
  sum.add(DeviceType::cuda, {"last_block_adds", refuses, sum_scratch, run});
}

}  // namespace heddle::kernels::cuda
