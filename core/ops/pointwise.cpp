#include "kernels/api/pointwise.h"

#include "core/ops/common.h"

namespace heddle {
namespace {

// y = alpha a + beta b, with casts: da = alpha dy, db = beta dy.
class AxpbyNode final : public Node {
 public:
  AxpbyNode(double alpha, double beta) : factor_{alpha, beta} {}
  std::string_view name() const override { return "add"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    for (size_t i = 0; i < dx.size(); ++i) {
      if (!dx[i].needed()) continue;
      if (factor_[i] == 1 && dy[0].dtype() == dtype[i]) {
        dx[i].give(dy[0]);
      } else {
        launch(kernels::axpby, {.a = dy[0].view(), .out = dx[i].sink(), .alpha = factor_[i]}, dy[0].device());
      }
    }
  }
  void release_saved() override {}
  DType dtype[2] = {};

 private:
  double factor_[2];
};

// y = a b: da = dy b, db = dy a.
class MultiplyNode final : public Node {
 public:
  std::string_view name() const override { return "mul"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Device device = dy[0].device();
    if (dx[0].needed()) launch(kernels::multiply, {dy[0].view(), b_.get(name()).view(), dx[0].sink()}, device);
    if (dx[1].needed()) launch(kernels::multiply, {dy[0].view(), a_.get(name()).view(), dx[1].sink()}, device);
  }
  void release_saved() override { a_.reset(), b_.reset(); }
  Saved a_, b_;
};

// y = a / b: da = dy / b, db = -dy y / b.
class DivideNode final : public Node {
 public:
  std::string_view name() const override { return "div"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Device device = dy[0].device();
    const View d = dy[0].view(), b = b_.get(name()).view();
    if (dx[0].needed()) launch(kernels::divide, {.a = d, .b = b, .out = dx[0].sink()}, device);
    if (dx[1].needed()) launch(kernels::divide, {.a = d, .b = b, .out = dx[1].sink(), .c = y_.get(name()).view(), .scale = -1}, device);
  }
  void release_saved() override { b_.reset(), y_.reset(); }
  Saved b_, y_;
};

// y = f(x): dx = dy f'(x).
class MapNode final : public Node {
 public:
  MapNode(kernels::Map map, float cap) : map_(map), cap_(cap) {}
  std::string_view name() const override { return "map"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    launch(kernels::map_backward, {map_, x_.get(name()).view(), dy[0].view(), dx[0].sink(), cap_}, dy[0].device());
  }
  void release_saved() override { x_.reset(); }
  Saved x_;

 private:
  kernels::Map map_;
  float cap_;
};

// y = silu(gate) up.
class SwigluNode final : public Node {
 public:
  std::string_view name() const override { return "swiglu"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    const Tensor& x = x_.get(name());
    Tensor grad = Tensor::empty_like(x);  // (N, 2F)
    launch(kernels::swiglu_backward, {rows_of(x), rows_of(dy[0]), rows_of(grad)}, x.device());
    dx[0].give(grad);
  }
  void release_saved() override { x_.reset(); }
  Saved x_;
};

Tensor map(kernels::Map which, const Tensor& x, float cap = 0) {
  check_floating(x, "map", "x");
  Tensor y = Tensor::empty_like(x);
  launch(kernels::map, {which, x.view(), y.view(), cap}, x.device());
  if (recording({&x})) {
    auto node = std::make_shared<MapNode>(which, cap);
    node->x_ = Saved(x);
    record(node, {&x}, {&y});
  }
  return y;
}

Tensor axpby(std::string_view op, const Tensor& a, const Tensor& b, double alpha, double beta, DType dtype) {
  check_floating(a, op, "a");
  HEDDLE_CHECK(!b || (a.shape() == b.shape() && is_floating(b.dtype())), op, "shapes differ: a ", shape_text(a.view()), ", b ", shape_text(b.view()));
  Tensor y = Tensor::empty(a.shape(), dtype, a.device());
  launch(kernels::axpby, {.a = a.view(), .b = b.view(), .out = {y.view(), false}, .alpha = alpha, .beta = beta}, a.device());
  if (recording({&a, &b})) {
    auto node = std::make_shared<AxpbyNode>(alpha, beta);
    node->dtype[0] = a.dtype();
    if (b) node->dtype[1] = b.dtype();
    record(node, {&a, &b}, {&y});
  }
  return y;
}

}  // namespace

Tensor add(const Tensor& a, const Tensor& b, double alpha, double beta) {
  return axpby("add", a, b, alpha, beta, a.dtype());
}
Tensor scale(const Tensor& x, double factor) {
  return axpby("scale", x, {}, factor, 0, x.dtype());
}
Tensor cast(const Tensor& x, DType dtype) {
  return axpby("cast", x, {}, 1, 0, dtype);
}

Tensor mul(const Tensor& a, const Tensor& b) {
  check_floating(a, "mul", "a");
  HEDDLE_CHECK(b && a.shape() == b.shape() && a.dtype() == b.dtype(), "mul", "operands differ: a ", shape_text(a.view()), ", b ",
               shape_text(b.view()));
  Tensor y = Tensor::empty_like(a);
  launch(kernels::multiply, {a.view(), b.view(), {y.view(), false}}, a.device());
  if (recording({&a, &b})) {
    auto node = std::make_shared<MultiplyNode>();
    node->a_ = Saved(a), node->b_ = Saved(b);
    record(node, {&a, &b}, {&y});
  }
  return y;
}

Tensor div(const Tensor& a, const Tensor& b) {
  check_floating(a, "div", "a");
  HEDDLE_CHECK(b && a.shape() == b.shape() && a.dtype() == b.dtype(), "div", "operands differ: a ", shape_text(a.view()), ", b ",
               shape_text(b.view()));
  Tensor y = Tensor::empty_like(a);
  launch(kernels::divide, {.a = a.view(), .b = b.view(), .out = {y.view(), false}}, a.device());
  if (recording({&a, &b})) {
    auto node = std::make_shared<DivideNode>();
    node->b_ = Saved(b), node->y_ = Saved(y);
    record(node, {&a, &b}, {&y});
  }
  return y;
}

Tensor gelu(const Tensor& x) {
  return map(kernels::Map::gelu, x);
}
Tensor relu2(const Tensor& x) {
  return map(kernels::Map::relu2, x);
}
Tensor silu(const Tensor& x) {
  return map(kernels::Map::silu, x);
}
Tensor sigmoid(const Tensor& x) {
  return map(kernels::Map::sigmoid, x);
}
Tensor tanh(const Tensor& x) {
  return map(kernels::Map::tanh, x);
}
Tensor exp(const Tensor& x) {
  return map(kernels::Map::exp, x);
}
Tensor log(const Tensor& x) {
  return map(kernels::Map::log, x);
}
Tensor softcap(const Tensor& x, float cap) {
  HEDDLE_CHECK(cap > 0, "softcap", "cap ", cap, " is not above 0");
  return map(kernels::Map::softcap, x, cap);
}

Tensor swiglu(const Tensor& x) {
  check_floating(x, "swiglu", "x");
  HEDDLE_CHECK(x.size(-1) % 2 == 0, "swiglu", "the last size of ", shape_text(x.shape()), " is not even");
  Tensor y = Tensor::empty(with_last(x.shape(), x.size(-1) / 2), x.dtype(), x.device());  // (N, F)
  launch(kernels::swiglu, {rows_of(x), rows_of(y)}, x.device());
  if (recording({&x})) {
    auto node = std::make_shared<SwigluNode>();
    node->x_ = Saved(x);
    record(node, {&x}, {&y});
  }
  return y;
}

}  // namespace heddle
