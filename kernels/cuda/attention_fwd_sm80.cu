// The Ampere candidate of attention_forward: bf16, head dimensions 64, 96 and 128.
#include "kernels/cuda/attention_fwd_sm80.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const AttentionForwardArgs& args) {
  if (args.q.dtype != DType::bf16) return refused("bf16 only, not ", args.q);
  if (args.q.size(3) != 64 && args.q.size(3) != 96 && args.q.size(3) != 128)
    return refused("head dimensions 64, 96 and 128 only, not ", args.q.size(3));
  if (args.position) return refused("a cache whose texts have lengths of their own");
  if (args.scale <= 0) return refused("scale must be positive, not ", args.scale);
  for (const View* view : {&args.q, &args.k, &args.v, &args.out}) {
    if (!rows_aligned_16(*view)) return refused("rows must start at multiples of 16 bytes");
  }
  return attention_grid_too_large(args);
}

void run(const AttentionForwardArgs& args, Stream stream) {
  if (args.q.numel() > 0) launch_attention_fwd_sm80_for(args, stream);
}

}  // namespace

void register_attention() {
  attention_forward.add(DeviceType::cuda, {"flash2_sm80", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
