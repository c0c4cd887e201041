// How a matrix product is cut along K, and what it leaves in scratch: pure functions of its shape, so that its bits are the same on every device.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace heddle::kernels::cuda {

// What one step of a kernel's main loop takes: a tile of C and the part of K it goes on by, in bytes that memory moves in the same time.
struct SplitCost {
  int block_m, block_n, block_k;
  int64_t bytes_per_step;
  int64_t block_steps = 16, launch_steps = 14;  // a block's start and end; a second launch
};

// Parts of K, each the work of blocks of its own, that bring the product to its end the soonest on a machine of kMultiprocessors; f32 sums of the
// parts go through memory and are added in their order. The machine is not the device at hand.
constexpr int matmul_splits(int64_t m, int64_t n, int64_t k, const SplitCost& cost) {
  constexpr int64_t kMultiprocessors = 128, kMostSplits = 16, kLeastSteps = 8;
  constexpr int64_t kMostScratch = int64_t{256} << 20;
  const auto up = [](int64_t a, int64_t b) { return (a + b - 1) / b; };
  const int64_t tiles = up(m, cost.block_m) * up(n, cost.block_n), steps = up(k, cost.block_k);
  int best = 1;
  int64_t best_cost = up(tiles, kMultiprocessors) * (steps + cost.block_steps);
  for (int64_t splits = 2; splits <= kMostSplits && up(steps, splits) >= kLeastSteps; ++splits) {
    if (up(steps, up(steps, splits)) != splits) continue;  // the last part would be empty
    if (4 * m * n * splits > kMostScratch) break;
    const int64_t memory = 8 * m * n * splits / cost.bytes_per_step;
    const int64_t total = up(tiles * splits, kMultiprocessors) * (up(steps, splits) + cost.block_steps) + memory + cost.launch_steps;
    if (total < best_cost) {
      best = static_cast<int>(splits);
      best_cost = total;
    }
  }
  return best;
}

// The kernel that adds the parts and finishes the product.
struct SplitSumConfig {
  int threads = 128;
  int rows = 16;     // of a warp
  int columns = 64;  // of a warp
  bool bf16_operands = false;
};

}  // namespace heddle::kernels::cuda
