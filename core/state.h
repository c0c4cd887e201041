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

struct StateDict {
  struct Entry {
    std::string name;             // "model.blocks.3.attn.q.weight", "optim.m.blocks.3.attn.q.weight"
    View data;                    // dense, this rank's piece
    std::vector<int64_t> global;  // shape of the whole tensor
    std::vector<Range> box;       // this piece: one range an axis (the whole tensor: [0, global[i]) for all i)
  };
  std::vector<Entry> tensors;  // in a fixed order; a name may come again with another box
  std::string scalars;         // a JSON object: step, tokens, cursor, seeds, skip list, ...
};

}  // namespace heddle
