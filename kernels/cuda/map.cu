// map and map_backward on a GPU: an activation and its derivative. One kernel for all of them, by dtype: which it is, is the same for every lane.
#include "kernels/api/elementwise_rules.h"
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/map.cuh"
#include "kernels/cuda/refusals.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {

struct Activate {
  static constexpr int kIn = 1, kOut = 1;
  Map map;
  float cap;

  template <int W>
  __device__ __forceinline__ void operator()(float (&y)[1][W], const float (&x)[1][W]) const {
    const auto each = [&](const auto& f) {
#pragma unroll
      for (int e = 0; e < W; ++e) y[0][e] = f(x[0][e]);
    };
    switch (map) {
      case Map::gelu: return each([](float v) { return thread::gelu(v); });
      case Map::relu2: return each([](float v) { return thread::relu2(v); });
      case Map::silu: return each([](float v) { return thread::silu(v); });
      case Map::sigmoid: return each([](float v) { return thread::sigmoid(v); });
      case Map::tanh: return each([](float v) { return tanhf(v); });
      case Map::exp: return each([](float v) { return expf(v); });
      case Map::log: return each([](float v) { return logf(v); });
      case Map::softcap: return each([c = cap](float v) { return c * tanhf(v / c); });
    }
  }
};

// dx = dy f'(x)
struct ActivateBackward {
  static constexpr int kIn = 2, kOut = 1;
  Map map;
  float cap;

  template <int W>
  __device__ __forceinline__ void operator()(float (&dx)[1][W], const float (&in)[2][W]) const {
    const auto each = [&](const auto& derivative) {
#pragma unroll
      for (int e = 0; e < W; ++e) dx[0][e] = in[1][e] * derivative(in[0][e]);
    };
    switch (map) {
      case Map::gelu: return each([](float v) { return thread::gelu_derivative(v); });
      case Map::relu2: return each([](float v) { return thread::relu2_derivative(v); });
      case Map::silu: return each([](float v) { return thread::silu_derivative(v, thread::sigmoid(v)); });
      case Map::sigmoid: return each([](float v) { return thread::sigmoid_derivative(v); });
      case Map::tanh: return each([](float v) { return thread::tanh_derivative(v); });
      case Map::exp: return each([](float v) { return expf(v); });
      case Map::log: return each([](float v) { return 1.0f / v; });
      case Map::softcap: return each([c = cap](float v) { return thread::tanh_derivative(v / c); });
    }
  }
};

namespace {

Refusal refuses(const MapArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.x});
}
void run(const MapArgs& args, Stream stream) {
  with_float(args.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch_map<Activate, T, T>({args.map, args.cap}, {args.x, args.out}, false, stream);
  });
}

Refusal refuses(const MapBackwardArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.x});
}
void run(const MapBackwardArgs& args, Stream stream) {
  const Views<3> views = {args.x, args.dy, args.dx.to};
  const ActivateBackward f{args.map, args.cap};
  if (args.x.dtype == DType::f32) {
    launch_map<ActivateBackward, float, float, float>(f, views, args.dx.accumulate, stream);
  } else {
    with_float(args.dx.to.dtype, [&](auto zero) { launch_map<ActivateBackward, bf16, bf16, decltype(zero)>(f, views, args.dx.accumulate, stream); });
  }
}

}  // namespace

void register_map() {
  map.add(DeviceType::cuda, {"units", refuses, nullptr, run});
  map_backward.add(DeviceType::cuda, {"units", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
