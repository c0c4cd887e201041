// The last CUDA candidate of matmul: all of the contract but f64.
#include "kernels/cuda/gemm_simt.cuh"
#include "kernels/cuda/matmul_layout.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

using Launch = void (*)(const GemmSimtParams&, int, Stream);

template <size_t kTile>
Launch launcher(bool bf16_operands) {
  constexpr auto kConfigured = [](bool bf16) {
    GemmSimtConfig config = kGemmSimtTiles[kTile];
    config.bf16_operands = bf16;
    return config;
  };
  return bf16_operands ? launch_gemm_simt<kConfigured(true)> : launch_gemm_simt<kConfigured(false)>;
}

MatmulPlan plan(const MatmulArgs& args) {
  const MatmulShape shape = shape_of(args);
  return {gemm_simt_splits(shape.m, shape.n, shape.k), kGemmSimtTiles[choose_gemm_simt(shape.m)].warp_m()};
}

Refusal refuses(const MatmulArgs& args) {
  if (args.a.dtype != DType::f32 && args.a.dtype != DType::bf16) return refused("f32 or bf16 operands only, not ", args.a);
  return refuses_long_sides(args);
}

size_t scratch(const MatmulArgs& args) {
  return matmul_scratch(args, plan(args));
}

void run(const MatmulArgs& args, Stream stream) {
  const MatmulPlan how = plan(args);
  const MatmulTarget target = matmul_target(args, how);
  if (args.c.to.numel() > 0) {
    const size_t tile = choose_gemm_simt(shape_of(args).m);
    static_assert(kGemmSimtTiles.size() == 2);
    const Launch launch = (tile == 0 ? launcher<0> : launcher<1>)(args.a.dtype == DType::bf16);
    launch(gemm_simt_params(args, target, how.splits, kGemmSimtTiles[tile]), how.splits, stream);
  }
  finish_matmul(args, how, stream);
}

}  // namespace

void register_matmul_simt() {
  matmul.add(DeviceType::cuda, {"simt", refuses, scratch, run});
}

}  // namespace heddle::kernels::cuda
