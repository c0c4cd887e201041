// Attention's candidate for a few queries over a KV cache: f32 and bf16, head dimensions up to 128. A tile of many queries would be nearly empty, and
// its one block a head would leave the GPU idle.
#include "kernels/cuda/attention_decode.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const AttentionForwardArgs& args) {
  constexpr int kMostQueries = AttentionDecodeConfig::kMostQueries, kMostColumns = AttentionDecodeConfig::kMostColumns;
  if (args.q.dtype != DType::f32 && args.q.dtype != DType::bf16) return refused("f32 and bf16 only, not ", args.q);
  if (args.q.size(1) > kMostQueries) return refused("more than ", kMostQueries, " queries: ", args.q);
  if (args.q.size(3) > kMostColumns) return refused("head size ", args.q.size(3), " is above ", kMostColumns);
  for (const View* view : {&args.q, &args.k, &args.v}) {
    if (!rows_aligned_16(*view) || args.q.size(3) * size_of(args.q.dtype) % 16 != 0) return refused("rows must be whole pieces of 16 bytes");
  }
  return attention_grid_too_large(args);
}

void run(const AttentionForwardArgs& args, Stream stream) {
  if (args.q.numel() == 0) return;
  args.q.dtype == DType::f32 ? launch_attention_decode<float>(args, stream) : launch_attention_decode<bf16>(args, stream);
}

}  // namespace

void register_attention_decode() {
  attention_forward.add(DeviceType::cuda, {"decode", refuses, attention_decode_bytes, run});
}

}  // namespace heddle::kernels::cuda
