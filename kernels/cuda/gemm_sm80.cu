// The Ampere candidate of matmul. Every tile of kGemmSm80Tiles is built for the three products of training.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_sm80.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

using Launch = void (*)(const GemmSm80Params&, Stream);

constexpr GemmSm80Config configured(GemmSm80Config config, MatmulLayout layout) {
  config.a = layout == MatmulLayout::weight_gradient ? Major::mn : Major::k;
  config.b = layout == MatmulLayout::forward ? Major::k : Major::mn;
  return config;
}

template <int kTile>
Launch launcher(MatmulLayout layout) {
  constexpr GemmSm80Config kConfig = kGemmSm80Tiles[kTile];
  switch (layout) {
    case MatmulLayout::forward: return launch_gemm_sm80<configured(kConfig, MatmulLayout::forward)>;
    case MatmulLayout::input_gradient: return launch_gemm_sm80<configured(kConfig, MatmulLayout::input_gradient)>;
    default: return launch_gemm_sm80<configured(kConfig, MatmulLayout::weight_gradient)>;
  }
}

MatmulPlan plan(const MatmulArgs& args) {
  static_assert(kGemmSm80Tiles[0].warp_m == kGemmSm80Tiles[1].warp_m);
  const MatmulShape shape = shape_of(args);
  return {gemm_sm80_splits(shape.m, shape.n, shape.k), kGemmSm80Tiles[0].warp_m};
}

size_t scratch(const MatmulArgs& args) {
  return matmul_scratch(args, plan(args));
}

void run(const MatmulArgs& args, Stream stream) {
  const MatmulShape shape = shape_of(args);
  const MatmulPlan how = plan(args);
  const MatmulTarget target = matmul_target(args, how);
  if (args.c.to.numel() > 0) {
    const MatmulLayout layout = layout_of(args.trans_a, args.trans_b);
    static_assert(kGemmSm80Tiles.size() == 2);
    const bool large = choose_gemm_sm80(shape.m, shape.n, multiprocessors(), how.splits) == 0;
    (large ? launcher<0> : launcher<1>)(layout)(gemm_sm80_params(args, target, how.splits), stream);
  }
  finish_matmul(args, how, stream);
}

}  // namespace

void register_matmul_sm80() {
  matmul.add(DeviceType::cuda, {"mma_sm80", refuses_tensor_core_matmul, scratch, run});
}

}  // namespace heddle::kernels::cuda
