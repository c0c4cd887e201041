// The Hopper kernels of proving_kernels.h: a source of their own, so that the others compile for Ampere.
#include "kernels/cuda/gemm_sm90.cuh"
#include "tests/sim/proving_kernels.cuh"
#include "tests/sim/proving_kernels.h"

namespace heddle::test {

using namespace kernels;        // NOLINT: a test's own source
using namespace kernels::cuda;  // NOLINT

namespace {

constexpr GemmSm90Config sm90(GemmSm90Config config, MatmulLayout layout) {
  config.out = layout == kWeight ? GemmOut::f32_add : GemmOut::bf16;
  return with_layout(config, layout);
}

constexpr GemmSm90Config kSmall90{64, 64, 3, 1, 1}, kCluster90{128, 128, 3, 2, 2}, kTall90{128, 64, 2, 1, 1}, kLarge90 = kGemmSm90Tiles[0];

}  // namespace

void gemm_sm90(Sm90Tile tile, const MatmulArgs& args, int blocks, int splits) {
  auto call = matmul_operands<GemmSm90Args>(args);
  call.c = args.c.to.data;
  call.ldc = args.c.to.step(0);
  call.blocks = blocks;
  call.splits = splits;
  const MatmulLayout layout = layout_of(args.trans_a, args.trans_b);
  const Stream stream{};
  if (tile == Sm90Tile::small && layout == kForward) return launch_gemm_sm90<sm90(kSmall90, kForward)>(call, stream);
  if (tile == Sm90Tile::small && layout == kInput) return launch_gemm_sm90<sm90(kSmall90, kInput)>(call, stream);
  if (tile == Sm90Tile::small && layout == kWeight) return launch_gemm_sm90<sm90(kSmall90, kWeight)>(call, stream);
  if (tile == Sm90Tile::cluster && layout == kForward) return launch_gemm_sm90<sm90(kCluster90, kForward)>(call, stream);
  if (tile == Sm90Tile::cluster && layout == kInput) return launch_gemm_sm90<sm90(kCluster90, kInput)>(call, stream);
  if (tile == Sm90Tile::cluster && layout == kWeight) return launch_gemm_sm90<sm90(kCluster90, kWeight)>(call, stream);
  if (tile == Sm90Tile::tall && layout == kForward) return launch_gemm_sm90<sm90(kTall90, kForward)>(call, stream);
  if (tile == Sm90Tile::large && layout == kForward) return launch_gemm_sm90<sm90(kLarge90, kForward)>(call, stream);
  not_built();
}

}  // namespace heddle::test
