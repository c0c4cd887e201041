// multiply on a GPU: a row of factors is a view whose rows are all the same one.
#include "kernels/api/elementwise_rules.h"
#include "kernels/cuda/map.cuh"
#include "kernels/cuda/refusals.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {

struct Multiply {
  static constexpr int kIn = 2, kOut = 1;

  template <int W>
  __device__ __forceinline__ void operator()(float (&out)[1][W], const float (&in)[2][W]) const {
#pragma unroll
    for (int e = 0; e < W; ++e) out[0][e] = in[0][e] * in[1][e];
  }
};

namespace {

Refusal refuses(const MultiplyArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.a});
}
void run(const MultiplyArgs& args, Stream stream) {
  const Views<3> views = {args.a, factors_like(args.a, args.b), args.out.to};
  if (args.a.dtype == DType::f32) {
    launch_map<Multiply, float, float, float>({}, views, args.out.accumulate, stream);
  } else {
    with_float(args.out.to.dtype, [&](auto zero) { launch_map<Multiply, bf16, bf16, decltype(zero)>({}, views, args.out.accumulate, stream); });
  }
}

}  // namespace

void register_multiply() {
  multiply.add(DeviceType::cuda, {"units", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
