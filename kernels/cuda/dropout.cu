// Inverted dropout on a GPU: see kernels/api/random.h. One thread draws one Philox block and handles its four elements.
#include "kernels/api/random.h"
#include "kernels/arch/platform.h"

namespace heddle::kernels::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) dropout_kernel(const __nv_bfloat16* x, __nv_bfloat16* out, int64_t n, uint64_t first, RngKey key, float p,
                                                           const StepState* step, bool accumulate) {
  const int64_t block_index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;  // of four elements, aligned in the unsharded tensor
  if (step != nullptr) key.stream = step->rng_stream;
  const uint64_t group = first / 4 + static_cast<uint64_t>(block_index);
  const Philox::Block words = Philox::draw(key, group);
  const float keep_scale = 1.0f / (1.0f - p);
  for (int lane = 0; lane < 4; ++lane) {
    const int64_t i = static_cast<int64_t>(group * 4 + static_cast<uint64_t>(lane)) - static_cast<int64_t>(first);
    if (i < 0 || i >= n) continue;
    const float kept = Philox::uniform(words[static_cast<size_t>(lane)]) >= p ? __bfloat162float(x[i]) * keep_scale : 0.0f;
    out[i] = __float2bfloat16_rn(accumulate ? __bfloat162float(out[i]) + kept : kept);
  }
}

Refusal refuses(const DropoutArgs& args) {
  if (args.x.dtype != DType::bf16 || args.out.to.dtype != DType::bf16) return refused("bf16 only, not ", args.x, " to ", args.out.to);
  if (!args.x.contiguous() || !args.out.to.contiguous()) return refused("dense views only");
  return {};
}

void run(const DropoutArgs& args, Stream stream) {
  const int64_t n = args.x.numel();
  if (n == 0) return;
  const int64_t groups = static_cast<int64_t>((args.first % 4 + static_cast<uint64_t>(n) + 3) / 4);
  HEDDLE_LAUNCH(dropout_kernel, static_cast<unsigned>((groups + kThreads - 1) / kThreads), kThreads, 0, stream, args.x.as<__nv_bfloat16>(),
                args.out.to.as<__nv_bfloat16>(), n, args.first, args.key, args.p, args.step, args.out.accumulate);
}

}  // namespace

void register_dropout() {
  dropout.add(DeviceType::cuda, {"philox", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
