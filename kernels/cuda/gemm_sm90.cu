// The Hopper candidate of matmul. Every tile of kGemmSm90Tiles is built for forward and input-gradient products with bf16 results and for
// weight-gradient products into f32, written or added.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_sm90.cuh"
#include "kernels/cuda/matmul_layout.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

using Launch = void (*)(const GemmSm90Args&, Stream);

constexpr GemmSm90Config configured(GemmSm90Config config, MatmulLayout layout, GemmOut out) {
  config.a = layout == MatmulLayout::weight_gradient ? Major::mn : Major::k;
  config.b = layout == MatmulLayout::forward ? Major::k : Major::mn;
  config.out = out;
  return config;
}

template <int kTile>
Launch launcher(MatmulLayout layout, bool accumulate) {
  constexpr GemmSm90Config kConfig = kGemmSm90Tiles[kTile];
  switch (layout) {
    case MatmulLayout::forward: return launch_gemm_sm90<configured(kConfig, MatmulLayout::forward, GemmOut::bf16)>;
    case MatmulLayout::input_gradient: return launch_gemm_sm90<configured(kConfig, MatmulLayout::input_gradient, GemmOut::bf16)>;
    default:
      return accumulate ? launch_gemm_sm90<configured(kConfig, MatmulLayout::weight_gradient, GemmOut::f32_add)>
                        : launch_gemm_sm90<configured(kConfig, MatmulLayout::weight_gradient, GemmOut::f32)>;
  }
}

Refusal refuses(const MatmulArgs& args) {
  if (Refusal common = refuses_tensor_core_matmul(args)) return common;
  if (Refusal epilogue = refuses_epilogue(args)) return epilogue;
  const bool weight_gradient = layout_of(args.trans_a, args.trans_b) == MatmulLayout::weight_gradient;
  if ((args.c.to.dtype == DType::f32) != weight_gradient) return refused("bf16 results forward and for input gradients, f32 for weight gradients");
  if (args.c.accumulate && !weight_gradient) return refused("only weight gradients accumulate");
  if (compute_capability() != 90) return refused("a Hopper GPU only, not compute capability ", compute_capability());
  return {};
}

void run(const MatmulArgs& args, Stream stream) {
  const MatmulShape shape = shape_of(args);
  if (shape.m == 0 || shape.n == 0) return;
  auto call = matmul_operands<GemmSm90Args>(args);
  call.c = args.c.to.data;
  call.ldc = args.c.to.step(0);
  call.blocks = multiprocessors();
  const MatmulLayout layout = layout_of(args.trans_a, args.trans_b);
  static_assert(kGemmSm90Tiles.size() == 3);
  const int tile = choose_gemm_sm90(shape.m, shape.n, call.blocks);
  const Launch launch = tile == 0   ? launcher<0>(layout, args.c.accumulate)
                        : tile == 1 ? launcher<1>(layout, args.c.accumulate)
                                    : launcher<2>(layout, args.c.accumulate);
  launch(call, stream);
}

}  // namespace

void register_matmul_sm90() {
  matmul.add(DeviceType::cuda, {"wgmma_sm90", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
