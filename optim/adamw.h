// AdamW over arena ranges; make_adamw (optim/optimizer.h) uses it for everything, Muon for what is no matrix.
#pragma once

#include <array>
#include <vector>

#include "optim/optimizer.h"

namespace heddle {

// Moments of some arena ranges, and their update in one launch.
class AdamWPart {
 public:
  AdamWPart(const Arena& arena, std::vector<Range> ranges, const AdamWOptions& options, const LrScale& lr_scale);
  // `masters`: packed like `owned`, which holds all of this part's ranges; or the arena's values.
  void step(const Arena& arena, const Tensor& masters, std::span<const PackedRange> owned, const StepState* step) const;
  void add_state(StateDict& state, const Layout& layout) const;  // "optim.m", "optim.v"

 private:
  std::vector<PackedRange> ranges_;
  AdamWOptions options_;
  Tensor m_, v_, group_of_block_;
  Tensor arena_block_;  // of each packed block; undefined for one range
  std::array<kernels::OptimizerGroup, kernels::kMaxGroups> groups_{};
};

}  // namespace heddle
