// swiglu and swiglu_backward on a GPU: the halves of a row are two views of it. And swiglu_matmul on any GPU: a product, then swiglu.
#include "kernels/api/swiglu_matmul_rules.h"
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/map.cuh"
#include "kernels/cuda/refusals.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {

// out = silu(gate) up
struct Swiglu {
  static constexpr int kIn = 2, kOut = 1;

  template <int W>
  __device__ __forceinline__ void operator()(float (&out)[1][W], const float (&in)[2][W]) const {
#pragma unroll
    for (int e = 0; e < W; ++e) out[0][e] = thread::silu(in[0][e]) * in[1][e];
  }
};

// gate, up, d_out -> d_gate, d_up
struct SwigluBackward {
  static constexpr int kIn = 3, kOut = 2;

  template <int W>
  __device__ __forceinline__ void operator()(float (&out)[2][W], const float (&in)[3][W]) const {
#pragma unroll
    for (int e = 0; e < W; ++e) {
      const float gate = in[0][e], d = in[2][e], s = thread::sigmoid(gate);
      out[0][e] = d * in[1][e] * thread::silu_derivative(gate, s);
      out[1][e] = d * gate * s;
    }
  }
};

namespace {

View left(const View& v) {
  return last_axis(v, 0, v.size(-1) / 2);
}
View right(const View& v) {
  return last_axis(v, v.size(-1) / 2, v.size(-1) / 2);
}

Refusal refuses(const SwigluArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.x});
}
void run(const SwigluArgs& args, Stream stream) {
  with_float(args.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch_map<Swiglu, T, T, T>({}, {left(args.x), right(args.x), args.out}, false, stream);
  });
}

Refusal refuses(const SwigluBackwardArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.x});
}
void run(const SwigluBackwardArgs& args, Stream stream) {
  with_float(args.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch_map<SwigluBackward, T, T, T, T, T>({}, {left(args.x), right(args.x), args.d_out, left(args.dx), right(args.dx)}, false, stream);
  });
}

using InTwo = SwigluMatmulInTwo<DeviceType::cuda>;

Refusal refuses(const SwigluMatmulArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.x});
}

}  // namespace

void register_swiglu() {
  swiglu.add(DeviceType::cuda, {"units", refuses, nullptr, run});
  swiglu_backward.add(DeviceType::cuda, {"units", refuses, nullptr, run});
  swiglu_matmul.add(DeviceType::cuda, {"in_two", refuses, InTwo::scratch, InTwo::run});
}

}  // namespace heddle::kernels::cuda
