// The CUDA candidates of both phases of the cross entropy.
#include "kernels/cuda/cross_entropy.cuh"

#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

Refusal refuses_stats(const CrossEntropyStatsArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return row_limits("logits", args.logits);
}

void run_stats(const CrossEntropyStatsArgs& args, Stream stream) {
  if (args.logits.size(0) == 0) return;
  args.logits.dtype == DType::bf16 ? launch_cross_entropy_stats<bf16>(args, stream) : launch_cross_entropy_stats<float>(args, stream);
}

Refusal refuses(const CrossEntropyArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return args.write_gradient ? row_limits("logits", args.logits) : row_limits("losses", args.losses);
}

void run(const CrossEntropyArgs& args, Stream stream) {
  if (args.losses.size(0) == 0) return;
  args.logits&& args.logits.dtype == DType::bf16 ? launch_cross_entropy<bf16>(args, stream) : launch_cross_entropy<float>(args, stream);
}

}  // namespace

void register_cross_entropy() {
  cross_entropy_stats.add(DeviceType::cuda, {"rows", refuses_stats, nullptr, run_stats});
  cross_entropy.add(DeviceType::cuda, {"rows", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
