// The Ampere candidate of matmul. Every tile of kGemmSm80Tiles is built for the three products of training, with bf16 and with f32 results.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_sm80.cuh"
#include "kernels/cuda/matmul_layout.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

using Launch = void (*)(const GemmSm80Params&, Stream);

constexpr GemmSm80Config configured(GemmSm80Config config, MatmulLayout layout, bool f32_out) {
  config.a = layout == MatmulLayout::weight_gradient ? Major::mn : Major::k;
  config.b = layout == MatmulLayout::forward ? Major::k : Major::mn;
  config.f32_out = f32_out;
  return config;
}

template <int kTile>
Launch launcher(MatmulLayout layout, bool f32_out) {
  constexpr GemmSm80Config kConfig = kGemmSm80Tiles[kTile];
  switch (layout) {
    case MatmulLayout::forward:
      return f32_out ? launch_gemm_sm80<configured(kConfig, MatmulLayout::forward, true)>
                     : launch_gemm_sm80<configured(kConfig, MatmulLayout::forward, false)>;
    case MatmulLayout::input_gradient:
      return f32_out ? launch_gemm_sm80<configured(kConfig, MatmulLayout::input_gradient, true)>
                     : launch_gemm_sm80<configured(kConfig, MatmulLayout::input_gradient, false)>;
    default:
      return f32_out ? launch_gemm_sm80<configured(kConfig, MatmulLayout::weight_gradient, true)>
                     : launch_gemm_sm80<configured(kConfig, MatmulLayout::weight_gradient, false)>;
  }
}

Refusal refuses(const MatmulArgs& args) {
  if (Refusal common = refuses_tensor_core_matmul(args)) return common;
  return refuses_epilogue(args);
}

void run(const MatmulArgs& args, Stream stream) {
  const MatmulShape shape = shape_of(args);
  if (shape.m == 0 || shape.n == 0) return;
  auto p = matmul_params<GemmSm80Params>(args);
  p.accumulate = args.c.accumulate;
  const MatmulLayout layout = layout_of(args.trans_a, args.trans_b);
  const bool f32_out = args.c.to.dtype == DType::f32;
  static_assert(kGemmSm80Tiles.size() == 2);
  const Launch launch = choose_gemm_sm80(shape.m, shape.n, multiprocessors()) == 0 ? launcher<0>(layout, f32_out) : launcher<1>(layout, f32_out);
  launch(p, stream);
}

}  // namespace

void register_matmul_sm80() {
  matmul.add(DeviceType::cuda, {"mma_sm80", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
