// What of a gradient bucket each data-parallel rank owns, and collectives over it.
#pragma once

#include <cstdint>
#include <vector>

#include "core/arena.h"
#include "parallel/communicator.h"

namespace heddle {

struct BucketParts {
  BucketParts(const Layout& layout, size_t bucket);

  Range range;                              // of the bucket
  std::vector<std::vector<Range>> of_rank;  // Layout::owned()
  std::vector<int64_t> counts;              // elements of each rank
  bool in_order = false;                    // the ranks' parts lie one after the other, each in one piece
};

// From every rank its own part of the bucket, to all: `buffer` has one element an arena element. Collective.
Work gather_bucket(Communicator& comm, const Tensor& buffer, const BucketParts& parts, Stream stream);

}  // namespace heddle
