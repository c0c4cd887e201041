// Weight: what layers and Nodes hold instead of a parameter's tensor. Its values need to be somewhere only while work that reads them is queued: they
// may be gathered from the ranks that keep them, merged with an adapter, or converted. So nobody keeps their address.
//
//   const WeightUse w(weight);                 // acquires on the current stream, releases at the end of the scope
//   launch(kernels::matmul, {.a = x.view(), .b = w.view(), ...}, device);
#pragma once

#include <memory>
#include <utility>

#include "core/device.h"
#include "core/tensor.h"

namespace heddle {

// Where a weight's values come from. Uses nest: a weight may be acquired again before it is released.
class WeightSource {
 public:
  virtual ~WeightSource() = default;
  // The values, of the slot's shape, dtype and device, for work queued on the stream up to the matching release.
  virtual Tensor acquire(Stream) = 0;
  virtual void release(Stream) noexcept = 0;
};

class Weight {
 public:
  Weight() = default;                              // none: an optional argument
  Weight(const Tensor& values) : slot_(values) {}  // plain: the tensor itself
  Weight(Tensor slot, std::shared_ptr<WeightSource> source) : slot_(std::move(slot)), source_(std::move(source)) {}

  explicit operator bool() const { return static_cast<bool>(slot_); }
  // What stands for it in the graph: its shape, dtype and device, and where its gradient goes. Its memory is nobody's business but the source's.
  const Tensor& slot() const { return slot_; }
  Device device() const { return slot_.device(); }
  DType dtype() const { return slot_.dtype(); }
  const Shape& shape() const { return slot_.shape(); }
  int rank() const { return slot_.rank(); }
  int64_t size(int axis) const { return slot_.size(axis); }

  // The values, for the work that is queued next on the stream; each acquire has its release. Ops use a WeightUse.
  Tensor acquire(Stream stream) const { return source_ ? source_->acquire(stream) : slot_; }
  void release(Stream stream) const noexcept {
    if (source_) source_->release(stream);
  }

 private:
  Tensor slot_;
  std::shared_ptr<WeightSource> source_;
};

// One use of a weight, on the stream that is current when it begins. Of no weight: an absent view.
class WeightUse {
 public:
  explicit WeightUse(const Weight& weight) : weight_(weight) {
    if (!weight_) return;
    stream_ = current_stream(weight_.device());
    values_ = weight_.acquire(stream_);
  }
  ~WeightUse() {
    if (weight_) weight_.release(stream_);
  }
  WeightUse(const WeightUse&) = delete;
  WeightUse& operator=(const WeightUse&) = delete;

  const Tensor& values() const { return values_; }
  View view() const { return values_.view(); }

 private:
  Weight weight_;
  Stream stream_;
  Tensor values_;
};

}  // namespace heddle
