#include "parallel/grad_buckets.h"

#include "core/device.h"
#include "core/launch.h"
#include "kernels/api/check.h"
#include "kernels/api/pointwise.h"

namespace heddle {

GradBuckets::GradBuckets(const Arena& arena, Communicator& comm, const Options& options)
    : arena_(arena), comm_(comm), options_(options), buckets_(arena.layout().buckets().size()) {
  const Layout& layout = arena.layout();
  const std::vector<Layout::Slot>& slots = layout.slots();
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].section == Section::frozen) continue;
    ++buckets_[slots[i].bucket].parameters;
    bucket_of_.emplace(arena.parameters()[i].tensor().shared().get(), slots[i].bucket);
  }
  HEDDLE_CHECK(!options.ordered || !options.wire, "grad_buckets", "sums that are rounded on their way depend on the number of ranks");
  if (!options.sharded && !options.ordered && !options.wire) return;
  HEDDLE_CHECK(layout.mesh().dp == comm.size() && layout.mesh().dp_rank == comm.rank(), "grad_buckets", "the layout is for rank ",
               layout.mesh().dp_rank, " of ", layout.mesh().dp, ", this is rank ", comm.rank(), " of ", comm.size());
  for (size_t i = 0; i < buckets_.size(); ++i) parts_.emplace_back(layout, i);
  if (options.ordered || options.wire) tree_ = std::make_unique<GradTree>(arena, comm, parts_, options.sharded, options.wire);
}

void GradBuckets::begin_step(int64_t micro_steps) {
  if (tree_) tree_->begin_step(options_.ordered ? micro_steps : 1);
}

void GradBuckets::begin() {
  under_way_.clear();
  for (Bucket& bucket : buckets_) bucket.pending = bucket.parameters;
  if (tree_) tree_->begin_last();
}

void GradBuckets::ready(const Tensor& leaf) {
  const auto it = bucket_of_.find(leaf.shared().get());
  HEDDLE_CHECK(it != bucket_of_.end(), "grad_buckets", "a leaf of shape ", shape_text(leaf.shape()), " is not in the arena");
  Bucket& bucket = buckets_[it->second];
  HEDDLE_CHECK(bucket.pending > 0, "grad_buckets", "a gradient was reported twice in one backward pass");
  if (--bucket.pending == 0) start(it->second, current_stream(leaf.device()));
}

void GradBuckets::start(size_t bucket, Stream stream) {
  if (tree_) return tree_->start(bucket, stream);
  Pending& pending = under_way_.emplace_back();
  pending.bucket = bucket;
  const View whole = flat_view(arena_.grads(), arena_.layout().buckets()[bucket].range);
  pending.work = options_.sharded ? scatter(pending, stream) : comm_.all_reduce(whole, stream);
}

Work GradBuckets::scatter(Pending& pending, Stream stream) {
  const BucketParts& parts = parts_[pending.bucket];
  const Tensor& grads = arena_.grads();
  const auto me = static_cast<size_t>(comm_.rank());
  int64_t before = 0;  // of this rank's part
  for (size_t rank = 0; rank < me; ++rank) before += parts.counts[rank];
  if (parts.in_order) {
    const int64_t begin = parts.range.begin + before;
    return comm_.reduce_scatter(flat_view(grads, parts.range), flat_view(grads, {begin, begin + parts.counts[me]}), parts.counts, stream);
  }
  pending.packed = Tensor::empty({parts.range.size()}, grads.dtype(), grads.device(), MemoryTag::gradient);
  int64_t at = 0;
  for (const std::vector<Range>& ranges : parts.of_rank) {
    for (const Range& range : ranges) {
      launch(kernels::axpby, {.a = flat_view(grads, range), .out = {flat_view(pending.packed, {at, at + range.size()}), false}}, grads.device());
      at += range.size();
    }
  }
  return comm_.reduce_scatter(pending.packed.view(), flat_view(pending.packed, {before, before + parts.counts[me]}), parts.counts, stream);
}

void GradBuckets::finish(Stream stream) {
  for (size_t i = 0; i < buckets_.size(); ++i) {
    const Layout::Bucket& bucket = arena_.layout().buckets()[i];
    HEDDLE_CHECK(buckets_[i].pending == 0, "grad_buckets", buckets_[i].pending, " gradients of bucket \"", bucket.name, "\", arena range [",
                 bucket.range.begin, ", ", bucket.range.end, "), never became final");
  }
  if (tree_) return tree_->finish(stream);
  for (const Pending& pending : under_way_) {
    pending.work.join(stream);
    if (!pending.packed) continue;
    const BucketParts& parts = parts_[pending.bucket];
    const auto me = static_cast<size_t>(comm_.rank());
    int64_t at = 0;
    for (size_t rank = 0; rank < me; ++rank) at += parts.counts[rank];
    for (const Range& range : parts.of_rank[me]) {
      launch(kernels::axpby, {.a = flat_view(pending.packed, {at, at + range.size()}), .out = {flat_view(arena_.grads(), range), false}},
             arena_.grads().device());
      at += range.size();
    }
  }
  under_way_.clear();
}

}  // namespace heddle
