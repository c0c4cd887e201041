// The CUDA candidate of normalize: f32 and bf16.
#include "kernels/api/rules.h"
#include "kernels/cuda/normalize.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const NormalizeArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  for (const View* view : {&args.x, &args.out}) {
    if (view->dtype == DType::f64) return refused("f32 and bf16 only, not ", *view);
  }
  return {};
}

size_t scratch(const NormalizeArgs& args) {
  return sizeof(double) * static_cast<size_t>(normalize_partials(args.x.numel()));
}

template <class T>
void run_of(const NormalizeArgs& args, Stream stream) {
  if (args.out.dtype == DType::bf16) {
    launch_normalize<T, bf16>(args, stream);
  } else {
    launch_normalize<T, float>(args, stream);
  }
}

void run(const NormalizeArgs& args, Stream stream) {
  check_scratch("normalize", args.scratch, scratch(args));
  if (args.x.dtype == DType::bf16) {
    run_of<bf16>(args, stream);
  } else {
    run_of<float>(args, stream);
  }
}

}  // namespace

void register_normalize() {
  normalize.add(DeviceType::cuda, {"two_level_sum", refuses, scratch, run});
}

}  // namespace heddle::kernels::cuda
