#include "parallel/grad_buckets.h"

#include <string>

#include "core/device.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

// "blocks.3.attn.qkv.weight" -> "blocks.3": parameters whose gradients become final together.
std::string block_of(const std::string& name) {
  const size_t first = name.find('.');
  if (name.compare(0, first, "blocks") != 0) return name;
  return name.substr(0, name.find('.', first + 1));
}

}  // namespace

GradBuckets::GradBuckets(const Arena& arena, Communicator& comm, int64_t target_bytes) : arena_(arena), comm_(comm) {
  const int64_t target = target_bytes / size_of(arena.grads().dtype());
  std::string current;
  const std::vector<Parameter>& parameters = arena.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    const Parameter& p = parameters[i];
    const Range range = arena.range(p);
    const std::string block = block_of(p.name());
    // The border between the arena's two sections is always one of buckets: matrices of the first block and the embedding become final far apart.
    const bool section = range.begin == arena.matrices_end();
    if (buckets_.empty() || section || (block != current && buckets_.back().range.size() >= target)) buckets_.push_back({{range.begin, range.begin}});
    current = block;
    Bucket& bucket = buckets_.back();
    bucket.range.end = i + 1 < parameters.size() ? arena.range(parameters[i + 1]).begin : arena.size();
    ++bucket.parameters;
    bucket_of_.emplace(p.tensor().shared().get(), buckets_.size() - 1);
  }
}

View GradBuckets::view(const Bucket& bucket) const {
  const Tensor& grads = arena_.grads();
  return make_view(grads.impl().data + bucket.range.begin * size_of(grads.dtype()), grads.dtype(), {bucket.range.size()});
}

void GradBuckets::begin() {
  for (Bucket& bucket : buckets_) bucket.pending = bucket.parameters;
}

void GradBuckets::ready(const Tensor& leaf) {
  const auto it = bucket_of_.find(leaf.shared().get());
  HEDDLE_CHECK(it != bucket_of_.end(), "grad_buckets", "a leaf of shape ", shape_text(leaf.shape()), " is not in the arena");
  Bucket& bucket = buckets_[it->second];
  HEDDLE_CHECK(bucket.pending > 0, "grad_buckets", "a gradient was reported twice in one backward pass");
  if (--bucket.pending == 0) comm_.start_all_reduce(view(bucket), current_stream(leaf.device()));
}

void GradBuckets::finish() {
  for (const Bucket& bucket : buckets_) {
    HEDDLE_CHECK(bucket.pending == 0, "grad_buckets", bucket.pending, " gradients of arena range [", bucket.range.begin, ", ", bucket.range.end,
                 ") never became final");
  }
  comm_.finish();
}

}  // namespace heddle
