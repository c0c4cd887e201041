#include "core/ops/common.h"
#include "kernels/api/matmul.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/reduce.h"
#include "kernels/api/swiglu_matmul.h"

namespace heddle {
namespace {

// pre = x w1^T + b1; act = f(pre); y = act w2^T + b2
//   dw2 = dy^T act, db2 = column sum of dy; dpre = (dy w2) f'(pre) in one epilogue with db1 as its column sum; dw1 = dpre^T x; dx = dpre w1
class ActivationMlpNode final : public Node {
 public:
  explicit ActivationMlpNode(bool gelu) : gelu_(gelu) {}
  std::string_view name() const override { return gelu_ ? "gelu_mlp" : "relu2_mlp"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Tensor &x = x_.get(name()), &pre = pre_.get(name()), &act = act_.get(name());
    const Device device = x.device();
    const View d = rows_of(dy[0]);
    if (dx[3].needed()) launch(kernels::matmul, {.a = d, .b = rows_of(act), .trans_a = true, .c = dx[3].sink()}, device);  // (C, F)
    if (dx[4].needed()) launch(kernels::column_sum, {.x = d, .out = dx[4].sink()}, device);                                // (C)
    act_.reset();
    Tensor dpre = Tensor::empty_like(pre);  // (N, F)
    {
      const WeightUse w2(w2_.get(name()));
      launch(kernels::matmul,
             {.a = d,
              .b = w2.view(),
              .c = {rows_of(dpre), false},
              .preact = rows_of(pre),
              .epilogue = gelu_ ? kernels::Epilogue::gelu_backward : kernels::Epilogue::relu2_backward,
              .column_sum = dx[2].sink()},
             device);
    }
    pre_.reset();
    if (dx[1].needed()) launch(kernels::matmul, {.a = rows_of(dpre), .b = rows_of(x), .trans_a = true, .c = dx[1].sink()}, device);  // (F, C)
    if (!dx[0].needed()) return;
    const WeightUse w1(w1_.get(name()));
    launch(kernels::matmul, {.a = rows_of(dpre), .b = w1.view(), .c = rows_of(dx[0].sink())}, device);  // (N, C)
  }
  void release_saved() override {
    for (Saved* s : {&x_, &pre_, &act_}) s->reset();
    w1_.reset(), w2_.reset();
  }

  Saved x_, pre_, act_;
  SavedWeight w1_, w2_;

 private:
  bool gelu_;
};

// both = x w1^T = [gate, up]; act = silu(gate) up; y = act w2^T
//   dw2 = dy^T act; dact = dy w2; dboth from (both, dact); dw1 = dboth^T x; dx = dboth w1
class SwigluMlpNode final : public Node {
 public:
  std::string_view name() const override { return "swiglu_mlp"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Tensor &x = x_.get(name()), &both = both_.get(name());
    const Device device = x.device();
    const View d = rows_of(dy[0]);
    if (dx[2].needed()) launch(kernels::matmul, {.a = d, .b = rows_of(act_.get(name())), .trans_a = true, .c = dx[2].sink()}, device);  // (C, F)
    act_.reset();
    if (!dx[0].needed() && !dx[1].needed()) return;
    Tensor dact = Tensor::empty(with_last(both.shape(), both.size(-1) / 2), x.dtype(), device);  // (N, F)
    {
      const WeightUse w2(w2_.get(name()));
      launch(kernels::matmul, {.a = d, .b = w2.view(), .c = {rows_of(dact), false}}, device);
    }
    Tensor dboth = Tensor::empty_like(both);  // (N, 2F)
    launch(kernels::swiglu_backward, {.x = rows_of(both), .d_out = rows_of(dact), .dx = rows_of(dboth)}, device);
    if (dx[1].needed()) launch(kernels::matmul, {.a = rows_of(dboth), .b = rows_of(x), .trans_a = true, .c = dx[1].sink()}, device);  // (2F, C)
    if (!dx[0].needed()) return;
    const WeightUse w1(w1_.get(name()));
    launch(kernels::matmul, {.a = rows_of(dboth), .b = w1.view(), .c = rows_of(dx[0].sink())}, device);  // (N, C)
  }
  void release_saved() override {
    for (Saved* s : {&x_, &both_, &act_}) s->reset();
    w1_.reset(), w2_.reset();
  }

  Saved x_, both_, act_;
  SavedWeight w1_, w2_;
};

void check_mlp(std::string_view op, const Tensor& x, const Weight& w1, const Weight& b1, const Weight& w2, const Weight& b2, int64_t gates) {
  check_floating(x, op, "x");
  for (const Weight* t : {&w1, &b1, &w2, &b2}) check_same_dtype(x, *t, op);
  HEDDLE_CHECK(w1 && w2 && w1.rank() == 2 && w2.rank() == 2 && x.size(-1) == w1.size(1) && w1.size(0) == gates * w2.size(1), op, "x ",
               shape_text(x.shape()), ", w1 ", shape_text(w1.slot().view()), ", w2 ", shape_text(w2.slot().view()), " do not fit each other");
}

Tensor activation_mlp(bool gelu, const Tensor& x, const Weight& w1, const Weight& b1, const Weight& w2, const Weight& b2) {
  check_mlp(gelu ? "gelu_mlp" : "relu2_mlp", x, w1, b1, w2, b2, 1);
  const bool recorded = recording({&x, &w1.slot(), &b1.slot(), &w2.slot(), &b2.slot()});
  Tensor act = Tensor::empty(with_last(x.shape(), w1.size(0)), x.dtype(), x.device());  // (N, F)
  Tensor pre = recorded ? Tensor::empty_like(act) : Tensor();                           // (N, F)
  {
    const WeightUse w(w1), b(b1);
    launch(kernels::matmul,
           {.a = rows_of(x),
            .b = w.view(),
            .trans_b = true,
            .c = {rows_of(act), false},
            .bias = b.view(),
            .preact = rows_of(pre),
            .epilogue = gelu ? kernels::Epilogue::gelu : kernels::Epilogue::relu2},
           x.device());
  }
  Tensor y = Tensor::empty(with_last(x.shape(), w2.size(0)), x.dtype(), x.device());  // (N, C)
  {
    const WeightUse w(w2), b(b2);
    launch(kernels::matmul, {.a = rows_of(act), .b = w.view(), .trans_b = true, .c = {rows_of(y), false}, .bias = b.view()}, x.device());
  }
  if (recorded) {
    auto node = std::make_shared<ActivationMlpNode>(gelu);
    node->x_ = Saved(x), node->w1_ = SavedWeight(w1), node->w2_ = SavedWeight(w2), node->pre_ = Saved(pre), node->act_ = Saved(act);
    record(node, {&x, &w1.slot(), &b1.slot(), &w2.slot(), &b2.slot()}, {&y});
  }
  return y;
}

}  // namespace

Tensor gelu_mlp(const Tensor& x, const Weight& w1, const Weight& b1, const Weight& w2, const Weight& b2) {
  return activation_mlp(true, x, w1, b1, w2, b2);
}

Tensor relu2_mlp(const Tensor& x, const Weight& w1, const Weight& b1, const Weight& w2, const Weight& b2) {
  return activation_mlp(false, x, w1, b1, w2, b2);
}

Tensor swiglu_mlp(const Tensor& x, const Weight& w1, const Weight& w2) {
  check_mlp("swiglu_mlp", x, w1, {}, w2, {}, 2);
  const Device device = x.device();
  const bool recorded = recording({&x, &w1.slot(), &w2.slot()});
  Tensor both = recorded ? Tensor::empty(with_last(x.shape(), w1.size(0)), x.dtype(), device) : Tensor();  // (N, 2F)
  Tensor act = Tensor::empty(with_last(x.shape(), w2.size(1)), x.dtype(), device);                         // (N, F)
  {
    const WeightUse w(w1);
    launch(kernels::swiglu_matmul, {.x = rows_of(x), .w = w.view(), .both = rows_of(both), .out = rows_of(act)}, device);
  }
  Tensor y = Tensor::empty(with_last(x.shape(), w2.size(0)), x.dtype(), device);  // (N, C)
  {
    const WeightUse w(w2);
    launch(kernels::matmul, {.a = rows_of(act), .b = w.view(), .trans_b = true, .c = {rows_of(y), false}}, device);
  }
  if (recorded) {
    auto node = std::make_shared<SwigluMlpNode>();
    node->x_ = Saved(x), node->w1_ = SavedWeight(w1), node->w2_ = SavedWeight(w2), node->both_ = Saved(both), node->act_ = Saved(act);
    record(node, {&x, &w1.slot(), &w2.slot()}, {&y});
  }
  return y;
}

}  // namespace heddle
