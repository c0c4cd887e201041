// The last CUDA candidate of matmul: all of the contract but f64.
#include "kernels/cuda/gemm_simt.cuh"
#include "kernels/cuda/matmul_finish.h"
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

GemmSimtOperand operand(const View& v, bool k_contiguous) {
  const int64_t bytes = 4 * size_of(v.dtype);
  const bool aligned = reinterpret_cast<uintptr_t>(v.data) % static_cast<uintptr_t>(bytes) == 0 && (v.size(0) <= 1 || v.step(0) % 4 == 0);
  return {v.data, v.step(0), k_contiguous, aligned};
}

void run(const MatmulArgs& args, Stream stream) {
  const MatmulShape shape = shape_of(args);
  const MatmulPlan how = plan(args);
  run_matmul(args, how, stream, [&](const MatmulTarget& target) {
    const size_t tile = choose_gemm_simt(shape.m);
    GemmSimtParams p{};
    p.a = operand(args.a, !args.trans_a);
    p.b = operand(args.b, args.trans_b);
    p.n = static_cast<int>(shape.n);
    p.k = static_cast<int>(shape.k);
    const int steps = ceil_div(p.k, kGemmSimtTiles[tile].block_k);
    p.steps_per_split = ceil_div(steps, how.splits);
    p.split_stride = target.split_stride;
    p.epilogue = target.epilogue;
    static_assert(kGemmSimtTiles.size() == 2);
    (tile == 0 ? launcher<0> : launcher<1>)(args.a.dtype == DType::bf16)(p, how.splits, stream);
  });
}

}  // namespace

void register_matmul_simt() {
  matmul.add(DeviceType::cuda, {"simt", refuses, scratch, run});
}

}  // namespace heddle::kernels::cuda
