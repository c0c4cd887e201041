// What must survive a run: named tensors with their place in the unsharded tensor, and small counters.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/api/types.h"

namespace heddle {

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

// Bits of the mesh axes; a set of them.
enum class Axis : uint8_t { dp = 1, tp = 2 };
using AxisSet = uint8_t;

// Which part of a global tensor a rank holds, and how its gradient and norm are combined over ranks.
struct ShardSpec {
  std::vector<int64_t> global;                        // shape of the unsharded tensor
  int axis = -1;                                      // the sliced axis; -1: whole
  Range slice;                                        // of that axis
  AxisSet grad_sum = static_cast<AxisSet>(Axis::dp);  // the gradient is summed over these
  int norm_owner = 0;                                 // tp rank that counts a replicated parameter in the global norm
};

struct StateDict {
  struct Entry {
    std::string name;             // "model.blocks.3.attn.qkv.weight", "optim.m.blocks.3.attn.qkv.weight"
    View data;                    // dense, this rank's piece
    std::vector<int64_t> global;  // shape of the whole tensor
    std::vector<Range> box;       // this piece: one range an axis (the whole tensor: [0, global[i]) for all i)
  };
  std::vector<Entry> tensors;  // in a fixed order; a name may come again with another box
  std::string scalars;         // a JSON object: step, tokens, cursor, seeds, skip list, ...
};

}  // namespace heddle
