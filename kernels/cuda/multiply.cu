// multiply and divide on a GPU: a row of factors is a view whose rows are all the same one.
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

// scale a / b
struct Divide {
  static constexpr int kIn = 2, kOut = 1;
  float scale;

  template <int W>
  __device__ __forceinline__ void operator()(float (&out)[1][W], const float (&in)[2][W]) const {
#pragma unroll
    for (int e = 0; e < W; ++e) out[0][e] = scale * in[0][e] / in[1][e];
  }
};

// scale a c / b
struct DivideProduct {
  static constexpr int kIn = 3, kOut = 1;
  float scale;

  template <int W>
  __device__ __forceinline__ void operator()(float (&out)[1][W], const float (&in)[3][W]) const {
#pragma unroll
    for (int e = 0; e < W; ++e) out[0][e] = scale * in[0][e] * in[2][e] / in[1][e];
  }
};

namespace {

// Inputs of one dtype; out of that, or f32.
template <class F, int K = F::kIn + 1>
void launch_product(const F& f, const Views<K>& views, bool accumulate, Stream stream) {
  const auto launch = [&](auto in, auto out) {
    [&]<size_t... k>(std::index_sequence<k...>) {
      launch_map<F, std::conditional_t<k + 1 == K, decltype(out), decltype(in)>...>(f, views, accumulate, stream);
    }
    (std::make_index_sequence<static_cast<size_t>(K)>{});
  };
  if (views[0].dtype == DType::f32) {
    launch(float{}, float{});
  } else {
    with_float(views[K - 1].dtype, [&](auto out) { launch(bf16{}, out); });
  }
}

Refusal refuses(const MultiplyArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.a});
}
void run(const MultiplyArgs& args, Stream stream) {
  launch_product(Multiply{}, {args.a, factors_like(args.a, args.b), args.out.to}, args.out.accumulate, stream);
}

Refusal refuses(const DivideArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.a});
}
void run(const DivideArgs& args, Stream stream) {
  const View b = factors_like(args.a, args.b);
  const float scale = static_cast<float>(args.scale);
  if (args.c) {
    launch_product(DivideProduct{scale}, {args.a, b, args.c, args.out.to}, args.out.accumulate, stream);
  } else {
    launch_product(Divide{scale}, {args.a, b, args.out.to}, args.out.accumulate, stream);
  }
}

}  // namespace

void register_multiply() {
  multiply.add(DeviceType::cuda, {"units", refuses, nullptr, run});
  divide.add(DeviceType::cuda, {"units", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
