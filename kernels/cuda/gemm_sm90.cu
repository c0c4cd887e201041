// The Hopper candidate of matmul. Every tile of kGemmSm90Tiles is built for the three products of training, with what TMA stores by itself and with
// the whole epilogue.
#include "kernels/api/multiprocessors.h"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_sm90.cuh"
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
Launch launcher(MatmulLayout layout, GemmOut out) {
  constexpr GemmSm90Config kConfig = kGemmSm90Tiles[kTile];
  constexpr MatmulLayout kForward = MatmulLayout::forward, kInput = MatmulLayout::input_gradient, kWeight = MatmulLayout::weight_gradient;
  const bool whole = out == GemmOut::whole;
  switch (layout) {
    case kForward:
      return whole ? launch_gemm_sm90<configured(kConfig, kForward, GemmOut::whole)> : launch_gemm_sm90<configured(kConfig, kForward, GemmOut::bf16)>;
    case kInput:
      return whole ? launch_gemm_sm90<configured(kConfig, kInput, GemmOut::whole)> : launch_gemm_sm90<configured(kConfig, kInput, GemmOut::bf16)>;
    default:
      return whole                     ? launch_gemm_sm90<configured(kConfig, kWeight, GemmOut::whole)>
             : out == GemmOut::f32_add ? launch_gemm_sm90<configured(kConfig, kWeight, GemmOut::f32_add)>
                                       : launch_gemm_sm90<configured(kConfig, kWeight, GemmOut::f32)>;
  }
}

MatmulPlan plan(const MatmulArgs& args) {
  const MatmulShape shape = shape_of(args);
  return {gemm_sm90_splits(shape.m, shape.n, shape.k), GemmSm90Config::kRowsPerPart};
}

Refusal refuses(const MatmulArgs& args) {
  if (Refusal common = refuses_tensor_core_matmul(args)) return common;
  if (compute_capability() != 90) return refused("a Hopper GPU only, not compute capability ", compute_capability());
  return {};
}

size_t scratch(const MatmulArgs& args) {
  return matmul_scratch(args, plan(args));
}

void run(const MatmulArgs& args, Stream stream) {
  const MatmulShape shape = shape_of(args);
  const MatmulPlan how = plan(args);
  const MatmulTarget target = matmul_target(args, how);
  if (args.c.to.numel() > 0) {
    const GemmSm90Args call = gemm_sm90_args(args, target, how.splits, multiprocessors_beside_communication(multiprocessors()));
    const MatmulLayout layout = layout_of(args.trans_a, args.trans_b);
    const GemmOut out = gemm_sm90_out(layout, target.epilogue);
    static_assert(kGemmSm90Tiles.size() == 3);
    const int tile = choose_gemm_sm90(shape.m, shape.n, call.blocks, how.splits);
    (tile == 0 ? launcher<0> : tile == 1 ? launcher<1> : launcher<2>)(layout, out)(call, stream);
  }
  finish_matmul(args, how, stream);
}

}  // namespace

void register_matmul_sm90() {
  matmul.add(DeviceType::cuda, {"wgmma_sm90", refuses, scratch, run});
}

}  // namespace heddle::kernels::cuda
