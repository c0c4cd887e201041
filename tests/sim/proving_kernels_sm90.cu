// The Hopper kernels of proving_kernels.h: a source of their own, so that the others compile for Ampere.
#include "kernels/cuda/gemm_sm90.cuh"
#include "kernels/cuda/matmul_finish.cuh"
#include "tests/sim/proving_kernels.cuh"
#include "tests/sim/proving_kernels.h"

namespace heddle::test {

using namespace kernels;        // NOLINT: a test's own source
using namespace kernels::cuda;  // NOLINT

namespace {

constexpr GemmSm90Config sm90(GemmSm90Config config, MatmulLayout layout, GemmOut out) {
  config.out = out;
  return with_layout(config, layout);
}

constexpr GemmSm90Config kSmall90{64, 64, 3, 1, 1}, kCluster90{128, 128, 3, 2, 2}, kTall90{128, 64, 2, 1, 1}, kLarge90 = kGemmSm90Tiles[0];

// What is built of each tile.
void launch(Sm90Tile tile, MatmulLayout layout, const GemmSm90Args& call) {
  const GemmOut out = gemm_sm90_out(layout, call.epilogue);
  const auto is = [&](Sm90Tile of_tile, MatmulLayout of_layout, GemmOut of_out) { return tile == of_tile && layout == of_layout && out == of_out; };
  constexpr GemmOut kBf16 = GemmOut::bf16, kF32 = GemmOut::f32, kAdd = GemmOut::f32_add, kWhole = GemmOut::whole;
  const Stream stream{};
  if (is(Sm90Tile::small, kForward, kBf16)) return launch_gemm_sm90<sm90(kSmall90, kForward, kBf16)>(call, stream);
  if (is(Sm90Tile::small, kForward, kWhole)) return launch_gemm_sm90<sm90(kSmall90, kForward, kWhole)>(call, stream);
  if (is(Sm90Tile::small, kInput, kBf16)) return launch_gemm_sm90<sm90(kSmall90, kInput, kBf16)>(call, stream);
  if (is(Sm90Tile::small, kWeight, kF32)) return launch_gemm_sm90<sm90(kSmall90, kWeight, kF32)>(call, stream);
  if (is(Sm90Tile::small, kWeight, kAdd)) return launch_gemm_sm90<sm90(kSmall90, kWeight, kAdd)>(call, stream);
  if (is(Sm90Tile::cluster, kForward, kBf16)) return launch_gemm_sm90<sm90(kCluster90, kForward, kBf16)>(call, stream);
  if (is(Sm90Tile::cluster, kForward, kWhole)) return launch_gemm_sm90<sm90(kCluster90, kForward, kWhole)>(call, stream);
  if (is(Sm90Tile::cluster, kInput, kBf16)) return launch_gemm_sm90<sm90(kCluster90, kInput, kBf16)>(call, stream);
  if (is(Sm90Tile::cluster, kWeight, kF32)) return launch_gemm_sm90<sm90(kCluster90, kWeight, kF32)>(call, stream);
  if (is(Sm90Tile::cluster, kWeight, kAdd)) return launch_gemm_sm90<sm90(kCluster90, kWeight, kAdd)>(call, stream);
  if (is(Sm90Tile::tall, kForward, kBf16)) return launch_gemm_sm90<sm90(kTall90, kForward, kBf16)>(call, stream);
  if (is(Sm90Tile::tall, kForward, kWhole)) return launch_gemm_sm90<sm90(kTall90, kForward, kWhole)>(call, stream);
  if (is(Sm90Tile::large, kForward, kBf16)) return launch_gemm_sm90<sm90(kLarge90, kForward, kBf16)>(call, stream);
  not_built();
}

}  // namespace

void gemm_sm90(Sm90Tile tile, const MatmulArgs& args, int blocks, int splits) {
  const MatmulLayout layout = layout_of(args.trans_a, args.trans_b);
  const MatmulEpilogue whole = matmul_epilogue(args, nullptr);
  if (splits == 1) return launch(tile, layout, gemm_sm90_args(args, {whole}, 1, blocks));
  // Parts in scratch, then their sum, as matmul_finish.cu does it.
  const int64_t row = scratch_row(whole.n), stride = whole.m * row;
  std::byte* scratch = device_allocate(static_cast<size_t>(splits * stride) * sizeof(float));
  MatmulEpilogue alone{};
  alone.c = scratch;
  alone.c_row = row;
  alone.m = whole.m;
  alone.n = static_cast<int>(row);
  alone.f32_out = alone.aligned = true;
  launch(tile, layout, gemm_sm90_args(args, {alone, stride}, splits, blocks));
  constexpr SplitSumConfig kConfig{.bf16_operands = true};
  const int warps = ceil_div(whole.m, kConfig.rows) * ceil_div(whole.n, kConfig.columns);
  HEDDLE_LAUNCH((split_sum_kernel<Configured<kConfig>>), static_cast<unsigned>(ceil_div(warps, kConfig.threads / 32)), kConfig.threads, 0, Stream{},
                SplitSumParams{reinterpret_cast<const float*>(scratch), splits, row, stride, whole});
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  device_free(scratch);
}

}  // namespace heddle::test
