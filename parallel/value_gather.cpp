#include "parallel/value_gather.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "kernels/api/check.h"

namespace heddle {

struct ValueGather::Bucket {
  Work work;
  bool under_way = false;
  Stream joined;  // the last stream that did
  bool has_joined = false;
  size_t first_parameter = std::numeric_limits<size_t>::max();

  void join(Stream stream) {
    if (!under_way || (has_joined && joined.native == stream.native)) return;
    work.join(stream);
    joined = stream;
    has_joined = true;
  }
};

class ValueGather::Source final : public WeightSource {
 public:
  Source(ValueGather& gather, std::shared_ptr<Bucket> bucket, Tensor values)
      : gather_(gather), bucket_(std::move(bucket)), values_(std::move(values)) {}
  Tensor acquire(Stream stream) override {
    gather_.join(*bucket_, stream);
    return values_;
  }
  void release(Stream) noexcept override {}

 private:
  ValueGather& gather_;  // takes its sources back when it goes
  std::shared_ptr<Bucket> bucket_;
  Tensor values_;
};

ValueGather::ValueGather(const Arena& arena, Communicator& comm) : arena_(arena), comm_(comm) {
  if (comm.size() == 1) return;
  const Layout& layout = arena.layout();
  HEDDLE_CHECK(layout.mesh().dp == comm.size(), "values", "the layout is for ", layout.mesh().dp, " ranks, there are ", comm.size());
  for (size_t i = 0; i < layout.buckets().size(); ++i) {
    parts_.emplace_back(layout, i);
    buckets_.push_back(std::make_shared<Bucket>());
  }
  for (size_t i = 0; i < layout.slots().size(); ++i) {
    const Layout::Slot& slot = layout.slots()[i];
    if (slot.section == Section::frozen) continue;
    const std::shared_ptr<Bucket>& bucket = buckets_[slot.bucket];
    bucket->first_parameter = std::min(bucket->first_parameter, slot.parameter);
    Parameter parameter = arena.parameters()[i];
    parameter.set_source(std::make_shared<Source>(*this, bucket, parameter.tensor()));
  }
  order_.resize(buckets_.size());
  std::iota(order_.begin(), order_.end(), size_t{0});
  std::stable_sort(order_.begin(), order_.end(), [&](size_t a, size_t b) { return buckets_[a]->first_parameter < buckets_[b]->first_parameter; });
}

ValueGather::~ValueGather() {
  if (buckets_.empty()) return;
  for (Parameter parameter : arena_.parameters()) parameter.set_source(nullptr);
}

void ValueGather::start(Stream stream) {
  owed_ = false;
  for (const size_t i : order_) {
    Bucket& bucket = *buckets_[i];
    bucket.work = gather_bucket(comm_, arena_.values(), parts_[i], stream);
    bucket.under_way = true;
    bucket.has_joined = false;
  }
}

void ValueGather::join(Bucket& bucket, Stream stream) {
  if (owed_) start(stream);
  bucket.join(stream);
}

void ValueGather::join_begun(Stream stream) {
  for (const std::shared_ptr<Bucket>& bucket : buckets_) bucket->join(stream);
}

void ValueGather::join(Stream stream) {
  if (owed_) start(stream);
  join_begun(stream);
}

void ValueGather::forget() {
  owed_ = false;
  for (const std::shared_ptr<Bucket>& bucket : buckets_) {
    bucket->under_way = false;
    bucket->work = {};
  }
}

}  // namespace heddle
