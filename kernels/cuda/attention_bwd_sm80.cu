// The Ampere candidate of attention_backward: bf16, head dimensions 64, 96 and 128.
#include "kernels/cuda/attention_bwd_sm80.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses(const AttentionBackwardArgs& args) {
  if (args.q.dtype != DType::bf16) return refused("bf16 only, not ", args.q);
  if (args.q.size(3) != 64 && args.q.size(3) != 96 && args.q.size(3) != 128)
    return refused("head dimensions 64, 96 and 128 only, not ", args.q.size(3));
  for (const View* view : {&args.q, &args.k, &args.v, &args.d_out, &args.dq, &args.dk, &args.dv}) {
    if (!rows_aligned_16(*view)) return refused("rows must start at multiples of 16 bytes");
  }
  return attention_grid_too_large(args);
}

void run(const AttentionBackwardArgs& args, Stream stream) {
  if (args.q.numel() > 0) launch_attention_bwd_sm80_for(args, stream);
}

}  // namespace

void register_attention_bwd_sm80() {
  attention_backward.add(DeviceType::cuda, {"flash2_sm80", refuses, attention_bwd_sm80_scratch, run});
}

}  // namespace heddle::kernels::cuda
