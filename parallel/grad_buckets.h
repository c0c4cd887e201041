// Gradient buckets: the ranges that Layout names, summed over the data-parallel ranks while backward still runs.
//
// A bucket starts to reduce when the leaf hook has seen its last parameter; every rank sees the same order of hooks, so the collectives match.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "core/arena.h"
#include "parallel/bucket_parts.h"
#include "parallel/communicator.h"
#include "parallel/grad_tree.h"

namespace heddle {

class GradBuckets {
 public:
  struct Options {
    bool sharded = false;  // a rank gets the sums of what it owns (Layout::owned) alone; what else is in its gradients then means nothing
    bool ordered = false;  // micro-steps and ranks are added in one order whatever their number (parallel/unit_tree.h)
    // What ranks send is rounded to this dtype, and added in that of the gradients. Not with `ordered`: one rank rounds nothing.
    std::optional<DType> wire;
  };
  // Error when the arena's layout is not for the ranks of `comm`, and parts of buckets are asked for.
  GradBuckets(const Arena& arena, Communicator& comm) : GradBuckets(arena, comm, Options{}) {}
  GradBuckets(const Arena& arena, Communicator& comm, const Options& options);

  // `ordered`: before the first micro-step of as many, and after each that is not the last; every one begins with Arena::begin_step().
  void begin_step(int64_t micro_steps);
  void keep_unit() { tree_->keep_unit(); }

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
  struct Pending {
    size_t bucket = 0;
    Work work;
    Tensor packed;  // the ranks' parts, one after the other; undefined where they are so in the arena
  };
  void start(size_t bucket, Stream stream);
  Work scatter(Pending& pending, Stream stream);

  const Arena& arena_;
  Communicator& comm_;
  Options options_;
  std::vector<Pending> under_way_;
  std::vector<Bucket> buckets_;  // in the order of the layout's
  std::vector<BucketParts> parts_;
  std::unique_ptr<GradTree> tree_;
  std::unordered_map<const TensorImpl*, size_t> bucket_of_;
};

}  // namespace heddle
