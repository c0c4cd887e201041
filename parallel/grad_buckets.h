// Gradient buckets: contiguous arena ranges that are summed over the data-parallel ranks while backward still runs.
//
// A bucket is a block's matrices, or a run of the other parameters. It starts to reduce when the leaf hook has seen its last parameter; every rank
// sees the same order of hooks, so the collectives match.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/arena.h"
#include "parallel/communicator.h"

namespace heddle {

class GradBuckets {
 public:
  // target_bytes: neighbouring blocks share a bucket until it is this large.
  GradBuckets(const Arena& arena, Communicator& comm, int64_t target_bytes = int64_t{25} << 20);

  // Before the backward pass whose gradients are final (the last micro-step).
  void begin();
  // The LeafHook.
  void ready(const Tensor& leaf);
  // Waits for all reductions. Throws Error when a bucket never filled.
  void finish();

  size_t size() const { return buckets_.size(); }
  Range range(size_t bucket) const { return buckets_[bucket].range; }

 private:
  struct Bucket {
    Range range;  // arena elements
    int parameters = 0, pending = 0;
  };
  View view(const Bucket&) const;

  const Arena& arena_;
  Communicator& comm_;
  std::vector<Bucket> buckets_;
  std::unordered_map<const TensorImpl*, size_t> bucket_of_;
};

}  // namespace heddle
