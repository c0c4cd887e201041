// The CUDA candidate of sum.
#include "kernels/cuda/sum.cuh"

#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

void run(const SumArgs& args, Stream stream) {
  check_scratch("sum", args.scratch, sum_scratch(args));
  check_scratch("sum", args.zeroed, sizeof(uint32_t));
  switch (args.x.dtype) {
    case DType::bf16: return launch_sum<bf16>(args, stream);
    case DType::f64: return launch_sum<double>(args, stream);
    default: return launch_sum<float>(args, stream);
  }
}

}  // namespace

void register_sum() {
  sum.add(DeviceType::cuda, {"last_block_adds", contradiction, sum_scratch, run});
}

}  // namespace heddle::kernels::cuda
