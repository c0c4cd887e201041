// Gradient buckets: the ranges that Layout names, summed over the data-parallel ranks while backward still runs.
//
// A bucket starts to reduce when the leaf hook has seen its last parameter; every rank sees the same order of hooks, so the collectives match.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

#include "core/arena.h"
#include "parallel/communicator.h"

namespace heddle {

class GradBuckets {
 public:
  GradBuckets(const Arena& arena, Communicator& comm);

  // Before the backward pass whose gradients are final (the last micro-step).
  void begin();
  // The LeafHook.
  void ready(const Tensor& leaf);
  // The stream joins all reductions. Error when a bucket never filled.
  void finish(Stream stream);

 private:
  struct Bucket {
    int parameters = 0, pending = 0;
  };

  const Arena& arena_;
  Communicator& comm_;
  std::vector<Work> under_way_;
  std::vector<Bucket> buckets_;  // in the order of the layout's
  std::unordered_map<const TensorImpl*, size_t> bucket_of_;
};

}  // namespace heddle
