#include "kernels/api/matmul.h"

#include "core/ops/common.h"
#include "kernels/api/reduce.h"

namespace heddle {
namespace {

// C = op(A) op(B). With dC given:
//   dA = dC op(B)^T, dB = op(A)^T dC; a stored transpose gets the transposed product: dA^T = op(B) dC^T.
class MatmulNode final : public Node {
 public:
  std::string_view name() const override { return "matmul"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Tensor &a = a_.get(name()), &b = b_.get(name());
    const Device device = a.device();
    const View dc = dy[0].view();
    if (dx[0].needed()) {
      kernels::MatmulArgs args;
      if (trans_a) {
        args = {.a = b.view(), .b = dc, .trans_a = trans_b, .trans_b = true, .c = dx[0].sink()};
      } else {
        args = {.a = dc, .b = b.view(), .trans_a = false, .trans_b = !trans_b, .c = dx[0].sink()};
      }
      launch(kernels::matmul, args, device);
    }
    if (dx[1].needed()) {
      kernels::MatmulArgs args;
      if (trans_b) {
        args = {.a = dc, .b = a.view(), .trans_a = true, .trans_b = trans_a, .c = dx[1].sink()};
      } else {
        args = {.a = a.view(), .b = dc, .trans_a = !trans_a, .trans_b = false, .c = dx[1].sink()};
      }
      launch(kernels::matmul, args, device);
    }
  }
  void release_saved() override { a_.reset(), b_.reset(); }

  Saved a_, b_;
  bool trans_a = false, trans_b = false;
};

// y = x w^T + bias
//   dx = dy w; dw = dy^T x; dbias = column sum of dy
class LinearNode final : public Node {
 public:
  std::string_view name() const override { return "linear"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Tensor& x = x_.get(name());
    const Device device = x.device();
    const View d = rows_of(dy[0]);
    if (dx[0].needed()) {
      const WeightUse w(w_.get(name()));
      launch(kernels::matmul, {.a = d, .b = w.view(), .c = rows_of(dx[0].sink())}, device);  // (N, K)
    }
    if (dx[1].needed()) launch(kernels::matmul, {.a = d, .b = rows_of(x), .trans_a = true, .c = dx[1].sink()}, device);  // (M, K)
    if (dx[2].needed()) launch(kernels::column_sum, {.x = d, .out = dx[2].sink()}, device);                              // (M)
  }
  void release_saved() override { x_.reset(), w_.reset(); }

  Saved x_;
  SavedWeight w_;
};

}  // namespace

Tensor matmul(const Tensor& a, const Tensor& b, bool trans_a, bool trans_b) {
  check_floating(a, "matmul", "a");
  check_same_dtype(a, b, "matmul");
  HEDDLE_CHECK(b && a.rank() == 2 && b.rank() == 2, "matmul", "two matrices are needed: a ", shape_text(a.view()), ", b ", shape_text(b.view()));
  const int64_t m = a.size(trans_a ? 1 : 0), k = a.size(trans_a ? 0 : 1), k_of_b = b.size(trans_b ? 1 : 0), n = b.size(trans_b ? 0 : 1);
  HEDDLE_CHECK(k == k_of_b, "matmul", "inner dimensions differ: a ", shape_text(a.shape()), trans_a ? " transposed" : "", ", b ",
               shape_text(b.shape()), trans_b ? " transposed" : "");
  Tensor c = Tensor::empty({m, n}, a.dtype(), a.device());  // (M, N)
  launch(kernels::matmul, {.a = a.view(), .b = b.view(), .trans_a = trans_a, .trans_b = trans_b, .c = {c.view(), false}}, a.device());
  if (recording({&a, &b})) {
    auto node = std::make_shared<MatmulNode>();
    node->a_ = Saved(a), node->b_ = Saved(b), node->trans_a = trans_a, node->trans_b = trans_b;
    record(node, {&a, &b}, {&c});
  }
  return c;
}

Tensor linear(const Tensor& x, const Weight& w, const Weight& bias) {
  check_floating(x, "linear", "x");
  for (const Weight* t : {&w, &bias}) check_same_dtype(x, *t, "linear");
  HEDDLE_CHECK(w && w.rank() == 2 && x.size(-1) == w.size(1), "linear", "x ", shape_text(x.shape()), " does not fit w ", shape_text(w.slot().view()),
               ", (out, in)");
  Tensor y = Tensor::empty(with_last(x.shape(), w.size(0)), x.dtype(), x.device());  // (N, M)
  {
    const WeightUse used(w), added(bias);
    launch(kernels::matmul, {.a = rows_of(x), .b = used.view(), .trans_b = true, .c = {rows_of(y), false}, .bias = added.view()}, x.device());
  }
  if (recording({&x, &w.slot(), &bias.slot()})) {
    auto node = std::make_shared<LinearNode>();
    node->x_ = Saved(x), node->w_ = SavedWeight(w);
    record(node, {&x, &w.slot(), &bias.slot()}, {&y});
  }
  return y;
}

}  // namespace heddle
