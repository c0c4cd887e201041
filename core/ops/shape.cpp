#include "core/ops/common.h"
#include "kernels/api/pointwise.h"

namespace heddle {
namespace {

class ReshapeNode final : public Node {
 public:
  explicit ReshapeNode(Shape shape) : shape_(shape) {}
  std::string_view name() const override { return "reshape"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override { dx[0].give(reshape(contiguous(dy[0]), shape_)); }
  void release_saved() override {}

 private:
  Shape shape_;
};

// The gradient is dy inside the slice and zero outside.
class SliceNode final : public Node {
 public:
  SliceNode(Shape shape, int axis, int64_t begin, int64_t end) : shape_(shape), axis_(axis), begin_(begin), end_(end) {}
  std::string_view name() const override { return "slice"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    Sink sink = dx[0].sink();
    if (!sink.accumulate) launch(kernels::fill, {sink.to, 0}, dy[0].device());
    View part = sink.to;
    part.data += begin_ * part.stride[axis_] * size_of(part.dtype);
    part.shape[axis_] = end_ - begin_;
    launch(kernels::axpby, {.a = dy[0].view(), .out = {part, true}}, dy[0].device());
  }
  void release_saved() override {}

 private:
  Shape shape_;
  int axis_;
  int64_t begin_, end_;
};

class TransposeNode final : public Node {
 public:
  TransposeNode(int a, int b) : a_(a), b_(b) {}
  std::string_view name() const override { return "transpose"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override { dx[0].give(transpose(dy[0], a_, b_)); }
  void release_saved() override {}

 private:
  int a_, b_;
};

class ConcatNode final : public Node {
 public:
  ConcatNode(int axis, std::vector<int64_t> sizes) : axis_(axis), sizes_(std::move(sizes)) {}
  std::string_view name() const override { return "concat"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    int64_t begin = 0;
    for (size_t i = 0; i < sizes_.size(); ++i) {
      if (dx[i].needed()) dx[i].give(contiguous(slice(dy[0], axis_, begin, begin + sizes_[i])));
      begin += sizes_[i];
    }
  }
  void release_saved() override {}

 private:
  int axis_;
  std::vector<int64_t> sizes_;
};

class CopyNode final : public Node {
 public:
  std::string_view name() const override { return "contiguous"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override { dx[0].give(dy[0]); }
  void release_saved() override {}
};

int checked_axis(const Tensor& x, int axis, std::string_view op) {
  const int a = axis < 0 ? x.rank() + axis : axis;
  HEDDLE_CHECK(a >= 0 && a < x.rank(), op, "axis ", axis, " of ", shape_text(x.shape()));
  return a;
}

}  // namespace

Tensor reshape(const Tensor& x, Shape shape) {
  HEDDLE_CHECK(shape.numel() == x.numel(), "reshape", shape_text(x.shape()), " does not have the elements of ", shape_text(shape));
  HEDDLE_CHECK(x.is_contiguous(), "reshape", "of a strided view ", shape_text(x.shape()), "; make it contiguous() first");
  Tensor y = make_view_tensor(x, shape, dense_strides(shape), 0);
  if (recording({&x})) record(std::make_shared<ReshapeNode>(x.shape()), {&x}, {&y});
  return y;
}

Tensor slice(const Tensor& x, int axis, int64_t begin, int64_t end) {
  const int a = checked_axis(x, axis, "slice");
  HEDDLE_CHECK(0 <= begin && begin <= end && end <= x.size(a), "slice", "[", begin, ", ", end, ") of axis ", axis, " of ", shape_text(x.shape()));
  Shape shape = x.shape();
  shape[a] = end - begin;
  Tensor y = make_view_tensor(x, shape, x.strides(), begin * x.strides()[a]);
  if (recording({&x})) record(std::make_shared<SliceNode>(x.shape(), a, begin, end), {&x}, {&y});
  return y;
}

Tensor transpose(const Tensor& x, int axis_a, int axis_b) {
  const int a = checked_axis(x, axis_a, "transpose"), b = checked_axis(x, axis_b, "transpose");
  View from = x.view();
  std::swap(from.shape[a], from.shape[b]);
  std::swap(from.stride[a], from.stride[b]);
  Tensor y = Tensor::empty(Shape(std::span<const int64_t>(from.shape.data(), static_cast<size_t>(from.rank))), x.dtype(), x.device());
  launch(kernels::axpby, {.a = from, .out = {y.view(), false}}, x.device());
  if (recording({&x})) record(std::make_shared<TransposeNode>(a, b), {&x}, {&y});
  return y;
}

Tensor concat(const std::vector<Tensor>& parts, int axis) {
  HEDDLE_CHECK(!parts.empty(), "concat", "of nothing");
  const int a = checked_axis(parts[0], axis, "concat");
  Shape shape = parts[0].shape();
  shape[a] = 0;
  std::vector<int64_t> sizes;
  std::vector<const Tensor*> inputs;
  bool recorded = false;
  for (const Tensor& part : parts) {
    Shape other = part.shape();
    HEDDLE_CHECK(other.rank() == shape.rank() && part.dtype() == parts[0].dtype(), "concat", "parts differ: ", shape_text(parts[0].view()), ", ",
                 shape_text(part.view()));
    sizes.push_back(other[a]);
    shape[a] += other[a];
    other[a] = parts[0].size(a);
    HEDDLE_CHECK(other == parts[0].shape(), "concat", "parts differ off axis ", axis, ": ", shape_text(parts[0].shape()), ", ",
                 shape_text(part.shape()));
    inputs.push_back(&part);
    recorded = recorded || recording({&part});
  }
  Tensor y = Tensor::empty(shape, parts[0].dtype(), parts[0].device());
  int64_t begin = 0;
  for (const Tensor& part : parts) {
    View to = y.view();
    to.data += begin * to.stride[a] * size_of(to.dtype);
    to.shape[a] = part.size(a);
    launch(kernels::axpby, {.a = part.view(), .out = {to, false}}, y.device());
    begin += part.size(a);
  }
  if (recorded) {
    Tensor* out = &y;
    record(std::make_shared<ConcatNode>(a, sizes), std::span<const Tensor* const>(inputs), std::span<Tensor* const>(&out, 1));
  }
  return y;
}

Tensor contiguous(const Tensor& x) {
  if (x.is_contiguous()) return x;
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());
  launch(kernels::axpby, {.a = x.view(), .out = {y.view(), false}}, x.device());
  if (recording({&x})) record(std::make_shared<CopyNode>(), {&x}, {&y});
  return y;
}

}  // namespace heddle
