// The checks a researcher runs on a layer: they pass what is right, and they find what is wrong.
#include "core/nn/layer_check.h"

#include "core/autograd/node.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;

class Adapter final : public Module {
 public:
  Adapter(int64_t dim, int64_t rank) : down_(dim, rank, {}), up_(rank, dim, {.bias = true, .init_std = 0}) {
    add("down", down_);
    add("up", up_);
  }
  Tensor forward(const Tensor& x) const { return heddle::add(x, up_.forward(silu(down_.forward(x)))); }

 private:
  Linear down_, up_;
};

// y = 2 x with a gradient of `factor` dy: right only for 2.
class DoubleNode final : public Node {
 public:
  explicit DoubleNode(double factor) : factor_(factor) {}
  std::string_view name() const override { return "double"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override { dx[0].give(scale(dy[0], factor_)); }
  void release_saved() override {}

 private:
  double factor_;
};
Tensor doubled(const Tensor& x, double factor) {
  Tensor y;
  {
    NoGradGuard no_grad;
    y = scale(x, 2);
  }
  if (recording({&x})) record(std::make_shared<DoubleNode>(factor), {&x}, {&y});
  return y;
}

// Its parameters are not all of its state.
class Hidden final : public Module {
 public:
  Hidden() : layer_(4, 4, {}), salt_(++count_) { add("layer", layer_); }
  Tensor forward(const Tensor& x) const { return scale(layer_.forward(x), salt_); }

 private:
  static inline int count_ = 0;
  Linear layer_;
  double salt_;
};

TEST_CASE("a right layer passes all three checks") {
  kernels::register_cpu_kernels();
  const LayerReport report = check_layer(layer_of<Adapter>(6, 3), {2, 5, 6}, {4, 8, 6});
  CAPTURE(report.text());
  CHECK(report.ok());
  CHECK(report.parameters == 6 * 3 + 3 * 6 + 6);
  CHECK(report.gradients.elements == 2 * 5 * 6 + report.parameters);
  CHECK(report.gradients.worst < 1e-8);
  CHECK(report.timing.flops == 2.0 * 32 * (18 + 18));
  CHECK(report.timing.runs >= 6);
  CHECK(report.timing.training_seconds > report.timing.forward_seconds * 0.5);
  CHECK(report.timing.saved_bytes >= 32 * (3 + 3 + 6) * sizeof(float));
  CHECK_THAT(report.text(), Contains("gradients   ok") && Contains("round trip  ok, 42 parameters") && Contains("GFLOP/s"));
}

TEST_CASE("a gradient that is wrong by a thousandth of a percent is found") {
  kernels::register_cpu_kernels();
  const auto with = [](double factor) { return check_gradients(test::one([=](auto in) { return doubled(in[0], factor); }), {random_input({3}, 1)}); };
  CHECK(with(2).ok);
  const GradCheck wrong = with(2.00002);
  CHECK_FALSE(wrong);
  CHECK(wrong.worst > 1e-6);
  CHECK_THAT(wrong.text, Contains("input 0 (3)") && Contains("central differences"));
}

TEST_CASE("a gradient that overwrites instead of adding is found") {
  kernels::register_cpu_kernels();
  class OverwriteNode final : public Node {
   public:
    std::string_view name() const override { return "overwrite"; }
    void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
      const Tensor to = Tensor::borrow(dx[0].sink().to);
      std::copy_n(dy[0].bytes().data(), dy[0].bytes().size(), to.bytes().data());
    }
    void release_saved() override {}
  };
  const GradCheck result = check_gradients(test::one([](auto in) {
                                             Tensor y = in[0].detach();
                                             if (recording({&in[0]})) record(std::make_shared<OverwriteNode>(), {&in[0]}, {&y});
                                             return y;
                                           }),
                                           {random_input({3}, 1)});
  CHECK_THAT(result.text, Contains("second backward"));
}

TEST_CASE("state that is not a parameter fails the round trip") {
  kernels::register_cpu_kernels();
  CHECK_THAT(check_layer_round_trip(layer_of<Hidden>(), {2, 4}), Contains("not a parameter"));
  CHECK(check_layer_round_trip(layer_of<Adapter>(6, 3), {2, 6}, DType::bf16) == "");
}

TEST_CASE("a failing layer's report names its parameters") {
  class Wrong final : public Module {
   public:
    Wrong() : layer_(3, 3, {}) { add("layer", layer_); }
    Tensor forward(const Tensor& x) const { return doubled(layer_.forward(x), 3); }

   private:
    Linear layer_;
  };
  kernels::register_cpu_kernels();
  const GradCheck result = check_layer_gradients(layer_of<Wrong>(), {2, 3});
  CHECK_THAT(result.text, Contains("input 0 is x, input 1 is layer.weight"));
}

TEST_CASE("gradient checks refuse what they cannot check") {
  kernels::register_cpu_kernels();
  const GradFunction f = test::one([](auto in) { return gelu(in[0]); });
  CHECK_THROWS_WITH(check_gradients(f, {random_input({3}, 1, 0, 1, DType::f32)}), Contains("f64"));
  CHECK_THROWS_WITH(check_gradients(f, {random_input({3}, 1, 0, 1, DType::f64, false)}), Contains("no input requires"));
}

}  // namespace
}  // namespace heddle
