#include "tests/sim/proving_kernels.h"

#include "kernels/cuda/attention_bwd_sm80.cuh"
#include "kernels/cuda/attention_fwd_sm80.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/gemm_simt.cuh"
#include "kernels/cuda/gemm_sm80.cuh"
#include "kernels/cuda/norm_forward.cuh"
#include "kernels/cuda/sum.cuh"
#include "tests/sim/proving_kernels.cuh"

namespace heddle::test {

using namespace kernels;        // NOLINT: a test's own source
using namespace kernels::cuda;  // NOLINT

std::byte* device_allocate(size_t bytes) {
  void* data = nullptr;
  check_cuda(cudaMalloc(&data, bytes), "cudaMalloc");
  return static_cast<std::byte*>(data);
}
void device_free(std::byte* data) {
  cudaFree(data);  // from destructors: after a fault CUDA refuses it, and that fault is what has to be told
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

constexpr GemmSm80Config kSmall80{64, 64, 32, 32, 32, 3}, kDeep80{64, 64, 64, 32, 32, 2}, kLarge80 = kGemmSm80Tiles[0];

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
