#include "parallel/grad_tree.h"

#include <algorithm>

#include "core/launch.h"
#include "kernels/api/check.h"
#include "kernels/api/pointwise.h"

namespace heddle {
namespace {

// to <- a + b
void add(const View& a, const View& b, const View& to, Device device) {
  launch(kernels::axpby, {.a = a, .b = b, .out = {to, false}}, device);
}
void copy(const View& from, const View& to, Device device) {
  launch(kernels::axpby, {.a = from, .out = {to, false}}, device);
}

}  // namespace

GradTree::GradTree(const Arena& arena, Communicator& comm, const std::vector<BucketParts>& parts, bool sharded, std::optional<DType> wire)
    : arena_(arena), comm_(comm), parts_(parts), sharded_(sharded), wire_(wire) {}

void GradTree::begin_step(int64_t units) {
  HEDDLE_CHECK(units > 0, "gradients", "a step of ", units, " units a rank");
  kept_.clear();
  joining_.clear();
  pending_.clear();
  unit_ = 0;
  if (units == units_) return;
  units_ = units;
  nodes_.clear();
  for (int rank = 0; rank < comm_.size(); ++rank) {
    for (const TreeNode& node : nodes_of(rank)) nodes_.push_back(node);
  }
  const auto index = [&](int64_t unit) {
    const auto it = std::find_if(nodes_.begin(), nodes_.end(), [&](const TreeNode& node) { return node.first() == unit; });
    return static_cast<size_t>(it - nodes_.begin());
  };
  joins_.clear();
  for (const TreeJoin& join : tree_joins(nodes_, true)) joins_.push_back({index(join.into), index(join.from)});
}

void GradTree::keep_unit() {
  HEDDLE_CHECK(unit_ + 1 < units_, "gradients", "unit ", unit_, " of ", units_, " is the last");
  const Tensor& grads = arena_.grads();
  TreeNode node{0, comm_.rank() * units_ + unit_++};
  for (; !kept_.empty() && siblings(kept_.back().node, node); node = node.parent()) {
    add(kept_.back().grads.view(), grads.view(), grads.view(), grads.device());
    kept_.pop_back();
  }
  kept_.push_back({node, Tensor::empty(grads.shape(), grads.dtype(), grads.device(), MemoryTag::gradient)});
  copy(grads.view(), kept_.back().grads.view(), grads.device());
}

void GradTree::begin_last() {
  HEDDLE_CHECK(unit_ + 1 == units_, "gradients", "unit ", unit_, " of ", units_, " is not the last");
  TreeNode node{0, comm_.rank() * units_ + unit_};
  for (; !kept_.empty() && siblings(kept_.back().node, node); node = node.parent()) {
    joining_.push_back(std::move(kept_.back().grads));
    kept_.pop_back();
  }
}

void GradTree::start(size_t bucket, Stream stream) {
  const BucketParts& parts = parts_[bucket];
  const Tensor& grads = arena_.grads();
  const View own = flat_view(grads, parts.range);
  for (const Tensor& left : joining_) add(flat_view(left, parts.range), own, own, grads.device());

  Pending& pending = pending_.emplace_back();
  pending.bucket = bucket;
  const auto me = static_cast<size_t>(comm_.rank());
  const auto sums = static_cast<int64_t>(kept_.size() + 1);  // of this rank
  int64_t in = 0, out = 0;
  for (size_t peer = 0; peer < parts.of_rank.size(); ++peer) {
    if (peer == me) continue;
    out += sums * parts.counts[peer];
    in += static_cast<int64_t>(nodes_of(static_cast<int>(peer)).size()) * parts.counts[me];
  }
  const DType dtype = wire_.value_or(grads.dtype());
  pending.received = Tensor::empty({in}, dtype, grads.device(), MemoryTag::gradient);
  if (wire_) pending.sent = Tensor::empty({out}, dtype, grads.device(), MemoryTag::gradient);
  in = out = 0;
  std::vector<Transfer> transfers;
  for (size_t peer = 0; peer < parts.of_rank.size(); ++peer) {
    if (peer == me) continue;
    const auto to = static_cast<int>(peer);
    for (size_t sum = 0; sum < static_cast<size_t>(sums); ++sum) {
      for (const Range& range : parts.of_rank[peer]) {
        View data = flat_view(mine(sum), range);
        if (wire_) {
          const View rounded = flat_view(pending.sent, {out, out + range.size()});
          copy(data, rounded, grads.device());
          data = rounded;
          out += range.size();
        }
        transfers.push_back({data, to, true});
      }
    }
    for (size_t sum = 0; sum < nodes_of(to).size(); ++sum) {
      for (const Range& range : parts.of_rank[me]) {
        transfers.push_back({flat_view(pending.received, {in, in + range.size()}), to, false});
        in += range.size();
      }
    }
  }
  if (!transfers.empty()) pending.work = comm_.grouped(transfers, stream);
}

// This rank's part of a bucket, whose sums are all here now.
void GradTree::add_up(const Pending& pending) {
  const BucketParts& parts = parts_[pending.bucket];
  const Tensor& grads = arena_.grads();
  const auto me = static_cast<size_t>(comm_.rank());
  Tensor received = pending.received;
  if (wire_ && received.numel() > 0) {
    received = Tensor::empty(received.shape(), grads.dtype(), grads.device(), MemoryTag::gradient);
    copy(pending.received.view(), received.view(), grads.device());
  }
  int64_t within = 0;  // of this rank's part, packed
  for (const Range& range : parts.of_rank[me]) {
    std::vector<View> sums;
    int64_t at = within;
    for (int rank = 0; rank < comm_.size(); ++rank) {
      const size_t nodes = nodes_of(rank).size();
      for (size_t node = 0; node < nodes; ++node) {
        if (rank == comm_.rank()) {
          sums.push_back(flat_view(mine(node), range));
        } else {
          sums.push_back(flat_view(received, {at, at + range.size()}));
          at += parts.counts[me];
        }
      }
    }
    for (const Join& join : joins_) add(sums[join.into], sums[join.from], sums[join.into], grads.device());
    const View to = flat_view(grads, range);
    if (sums[0].data != to.data) copy(sums[0], to, grads.device());
    within += range.size();
  }
}

void GradTree::finish(Stream stream) {
  std::vector<Work> gathers;
  for (const Pending& pending : pending_) {
    pending.work.join(stream);
    add_up(pending);
    if (!sharded_ && comm_.size() > 1) gathers.push_back(gather_bucket(comm_, arena_.grads(), parts_[pending.bucket], stream));
  }
  for (const Work& gather : gathers) gather.join(stream);
  pending_.clear();
  joining_.clear();
  kept_.clear();
}

}  // namespace heddle
