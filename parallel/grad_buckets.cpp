#include "parallel/grad_buckets.h"

#include "core/device.h"
#include "kernels/api/check.h"

namespace heddle {

GradBuckets::GradBuckets(const Arena& arena, Communicator& comm) : arena_(arena), comm_(comm), buckets_(arena.layout().buckets().size()) {
  const std::vector<Layout::Slot>& slots = arena.layout().slots();
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].section == Section::frozen) continue;
    ++buckets_[slots[i].bucket].parameters;
    bucket_of_.emplace(arena.parameters()[i].tensor().shared().get(), slots[i].bucket);
  }
}

void GradBuckets::begin() {
  under_way_.clear();
  for (Bucket& bucket : buckets_) bucket.pending = bucket.parameters;
}

void GradBuckets::ready(const Tensor& leaf) {
  const auto it = bucket_of_.find(leaf.shared().get());
  HEDDLE_CHECK(it != bucket_of_.end(), "grad_buckets", "a leaf of shape ", shape_text(leaf.shape()), " is not in the arena");
  Bucket& bucket = buckets_[it->second];
  HEDDLE_CHECK(bucket.pending > 0, "grad_buckets", "a gradient was reported twice in one backward pass");
  if (--bucket.pending > 0) return;
  under_way_.push_back(comm_.all_reduce(flat_view(arena_.grads(), arena_.layout().buckets()[it->second].range), current_stream(leaf.device())));
}

void GradBuckets::finish(Stream stream) {
  for (size_t i = 0; i < buckets_.size(); ++i) {
    const Layout::Bucket& bucket = arena_.layout().buckets()[i];
    HEDDLE_CHECK(buckets_[i].pending == 0, "grad_buckets", buckets_[i].pending, " gradients of bucket \"", bucket.name, "\", arena range [",
                 bucket.range.begin, ", ", bucket.range.end, "), never became final");
  }
  for (const Work& work : under_way_) work.join(stream);
  under_way_.clear();
}

}  // namespace heddle
