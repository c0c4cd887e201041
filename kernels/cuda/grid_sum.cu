// Host side of the one-launch sum.
#include "kernels/cuda/grid_sum.cuh"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {
namespace {

constexpr GridSumConfig kConfig;
constexpr size_t kCounterBytes = 16;

}  // namespace

size_t grid_sum_scratch(int64_t n) {
  return kCounterBytes + sizeof(float) * static_cast<size_t>(kConfig.blocks(n));
}

void grid_sum(const GridSumArgs& args, Stream stream) {
  const int64_t n = args.x.numel();
  HEDDLE_CHECK(args.x.dtype == DType::bf16 && args.x.contiguous() && reinterpret_cast<uintptr_t>(args.x.data) % 16 == 0, "grid_sum",
               "x must be dense bf16 at a multiple of 16 bytes, not ", shape_text(args.x));
  HEDDLE_CHECK(args.out.to.dtype == DType::f32 && args.out.to.numel() == 1, "grid_sum", "out must be one f32, not ", shape_text(args.out.to));
  HEDDLE_CHECK(args.scratch.size() >= grid_sum_scratch(n), "grid_sum", "scratch has ", args.scratch.size(), " of ", grid_sum_scratch(n), " bytes");
  GridSumParams p{};
  p.x = args.x.as<const bf16>();
  p.n = n;
  p.arrived = reinterpret_cast<uint32_t*>(args.scratch.data());
  p.partial = reinterpret_cast<float*>(args.scratch.data() + kCounterBytes);
  p.out = args.out.to.as<float>();
  p.scale = args.scale;
  p.accumulate = args.out.accumulate;
  if (args.squares) {
    launch_grid_sum<kConfig, true>(p, stream);
  } else {
    launch_grid_sum<kConfig, false>(p, stream);
  }
}

}  // namespace heddle::kernels::cuda
