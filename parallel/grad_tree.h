// Gradients of a step's units (micro-steps) added in the one order of unit_tree.h, on ranks and between them.
//
// No rank sees another's whole gradient: of every bucket each sends the others what they own of its sums, adds what it gets of its own part, and,
// unless parts are all that is wanted, the parts are gathered. Adding is our own business throughout, so its order is not a library's.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "core/arena.h"
#include "parallel/bucket_parts.h"
#include "parallel/communicator.h"
#include "parallel/unit_tree.h"

namespace heddle {

class GradTree {
 public:
  // `sharded`: a rank gets the sums of what it owns alone. `wire`: what ranks send is rounded to this dtype first.
  GradTree(const Arena& arena, Communicator& comm, const std::vector<BucketParts>& parts, bool sharded, std::optional<DType> wire);

  void begin_step(int64_t units);  // of every rank
  // After the backward of a unit that is not the last: its gradients are in the arena, which the next one may then write anew.
  void keep_unit();
  // Before the last unit's backward; then start() for each bucket once its gradients are final, and finish().
  void begin_last();
  void start(size_t bucket, Stream stream);
  void finish(Stream stream);

 private:
  struct Sum {
    TreeNode node;
    Tensor grads;  // laid out as the arena's
  };
  struct Pending {
    size_t bucket = 0;
    Work work;
    Tensor sent, received;  // until the work is joined
  };
  struct Join {
    size_t into = 0, from = 0;  // in nodes_
  };
  const Tensor& mine(size_t node) const { return node < kept_.size() ? kept_[node].grads : arena_.grads(); }
  std::vector<TreeNode> nodes_of(int rank) const { return tree_nodes(rank * units_, units_); }
  void add_up(const Pending& pending);

  const Arena& arena_;
  Communicator& comm_;
  const std::vector<BucketParts>& parts_;
  bool sharded_;
  std::optional<DType> wire_;
  int64_t units_ = 0, unit_ = 0;
  std::vector<Sum> kept_;        // ascending, of the units so far
  std::vector<Tensor> joining_;  // sums that the last unit's completes, nearest first
  std::vector<Pending> pending_;
  std::vector<TreeNode> nodes_;  // of all ranks, ascending
  std::vector<Join> joins_;
};

}  // namespace heddle
