#include "tests/sim/proving_kernels.h"

#include "kernels/cuda/attention_bwd_sm80.cuh"
#include "kernels/cuda/attention_fwd_sm80.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_simt.cuh"
#include "kernels/cuda/gemm_sm80.cuh"
#include "kernels/cuda/gemm_sm90.cuh"
#include "kernels/cuda/matmul_layout.h"
#include "kernels/cuda/norm_forward.cuh"
#include "kernels/cuda/sum.cuh"

namespace heddle::test {

using namespace kernels;        // NOLINT: a test's own source
using namespace kernels::cuda;  // NOLINT

std::byte* device_allocate(size_t bytes) {
  void* data = nullptr;
  check_cuda(cudaMalloc(&data, bytes), "cudaMalloc");
  return static_cast<std::byte*>(data);
}
void device_free(std::byte* data) {
  check_cuda(cudaFree(data), "cudaFree");
}
void copy_to_device(std::byte* to, const std::byte* from, size_t bytes) {
  check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyHostToDevice), "cudaMemcpy");
}
void copy_to_host(std::byte* to, const std::byte* from, size_t bytes) {
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDeviceToHost), "cudaMemcpy");
}
int device_capability() {
  return compute_capability();
}

namespace {

constexpr MatmulLayout kForward = MatmulLayout::forward, kInput = MatmulLayout::input_gradient, kWeight = MatmulLayout::weight_gradient;

template <class Config>
constexpr Config with_layout(Config config, MatmulLayout layout) {
  config.a = layout == kWeight ? Major::mn : Major::k;
  config.b = layout == kForward ? Major::k : Major::mn;
  return config;
}
constexpr GemmSm90Config sm90(GemmSm90Config config, MatmulLayout layout) {
  config.out = layout == kWeight ? GemmOut::f32_add : GemmOut::bf16;
  return with_layout(config, layout);
}

constexpr GemmSm80Config kSmall80{64, 64, 32, 32, 32, 3}, kDeep80{64, 64, 64, 32, 32, 2}, kLarge80 = kGemmSm80Tiles[0];
constexpr GemmSm90Config kSmall90{64, 64, 3, 1, 1}, kCluster90{128, 128, 3, 2, 2}, kTall90{128, 64, 2, 1, 1}, kLarge90 = kGemmSm90Tiles[0];

[[noreturn]] void not_built() {
  fail("test", "this tile is not built for this layout");
}

}  // namespace

void gemm_sm80(Sm80Tile tile, const MatmulArgs& args) {
  const GemmSm80Params p = gemm_sm80_params(args, {matmul_epilogue(args, nullptr)}, 1);
  const MatmulLayout layout = layout_of(args.trans_a, args.trans_b);
  const Stream stream{};
  if (tile == Sm80Tile::small && layout == kForward) return launch_gemm_sm80<with_layout(kSmall80, kForward)>(p, stream);
  if (tile == Sm80Tile::small && layout == kInput) return launch_gemm_sm80<with_layout(kSmall80, kInput)>(p, stream);
  if (tile == Sm80Tile::small && layout == kWeight) return launch_gemm_sm80<with_layout(kSmall80, kWeight)>(p, stream);
  if (tile == Sm80Tile::deep_k && layout == kForward) return launch_gemm_sm80<with_layout(kDeep80, kForward)>(p, stream);
  if (tile == Sm80Tile::large && layout == kForward) return launch_gemm_sm80<with_layout(kLarge80, kForward)>(p, stream);
  if (tile == Sm80Tile::large && layout == kWeight) return launch_gemm_sm80<with_layout(kLarge80, kWeight)>(p, stream);
  not_built();
}

void gemm_simt(const MatmulArgs& args) {
  constexpr GemmSimtConfig kConfig = [] {
    GemmSimtConfig config = kGemmSimtTiles[0];
    config.bf16_operands = true;
    return config;
  }();
  launch_gemm_simt<kConfig>(gemm_simt_params(args, {matmul_epilogue(args, nullptr)}, 1, kConfig), 1, Stream{});
}

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

void norm_rows(const NormForwardArgs& args, unsigned blocks) {
  launch_norm_forward<bf16>(args, blocks, Stream{});
}

void sum_up(const SumArgs& args) {
  launch_sum<bf16>(args, Stream{});
}
size_t sum_scratch(const SumArgs& args) {
  return cuda::sum_scratch(args);
}

void attention(const AttentionForwardArgs& args) {
  launch_attention_fwd_sm80_for(args, Stream{});
}
size_t attention_gradients_scratch(const AttentionBackwardArgs& args) {
  return attention_bwd_sm80_scratch(args);
}
void attention_gradients(const AttentionBackwardArgs& args) {
  launch_attention_bwd_sm80_for(args, Stream{});
}

}  // namespace heddle::test
