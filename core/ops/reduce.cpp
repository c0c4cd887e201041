#include "kernels/api/reduce.h"

#include "core/ops/common.h"
#include "kernels/api/pointwise.h"

namespace heddle {
namespace {

// y = factor sum(x): dx = factor dy everywhere.
class SumNode final : public Node {
 public:
  explicit SumNode(double factor) : factor_(factor) {}
  std::string_view name() const override { return "sum"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    View spread = dy[0].view();  // the scalar seen with the input's shape: all strides 0
    Sink sink = dx[0].sink();
    spread.rank = sink.to.rank;
    spread.shape = sink.to.shape;
    spread.stride = {};
    launch(kernels::axpby, {.a = spread, .out = sink, .alpha = factor_}, dy[0].device());
  }
  void release_saved() override {}

 private:
  double factor_;
};

// y = softmax(s x) by rows: dx = s y (dy - sum(dy y)).
class SoftmaxNode final : public Node {
 public:
  explicit SoftmaxNode(float scale) : scale_(scale) {}
  std::string_view name() const override { return "softmax"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    launch(kernels::softmax_backward, {rows_of(y_.get(name())), rows_of(dy[0]), rows_of(dx[0].sink()), scale_}, dy[0].device());
  }
  void release_saved() override { y_.reset(); }
  Saved y_;

 private:
  float scale_;
};

Tensor sum_times(const Tensor& x, double factor) {
  check_floating(x, "sum", "x");
  const Tensor dense = contiguous(x);
  Tensor y = Tensor::empty({}, accumulator_of(x.dtype()), x.device());
  launch(kernels::sum, {.x = dense.view(), .out = {y.view(), false}, .scale = factor}, x.device());
  if (recording({&x})) record(std::make_shared<SumNode>(factor), {&x}, {&y});
  return y;
}

}  // namespace

Tensor sum(const Tensor& x) {
  return sum_times(x, 1);
}
Tensor mean(const Tensor& x) {
  return sum_times(x, 1.0 / static_cast<double>(x.numel()));
}

Tensor softmax(const Tensor& x, float scale) {
  check_floating(x, "softmax", "x");
  Tensor y = Tensor::empty(x.shape(), x.dtype(), x.device());  // (N, C)
  launch(kernels::softmax, {rows_of(x), rows_of(y), scale}, x.device());
  if (recording({&x})) {
    auto node = std::make_shared<SoftmaxNode>(scale);
    node->y_ = Saved(y);
    record(node, {&x}, {&y});
  }
  return y;
}

}  // namespace heddle
