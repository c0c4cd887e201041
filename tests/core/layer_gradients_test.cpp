// Every layer of core/nn/layers.h with each of its options, against central differences.
#include "core/nn/layer_check.h"
#include "core/nn/layers.h"
#include "core/ops/ops.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

std::string layer_errors(const MakeLayer& make, Shape input, const GradCheckOptions& options = {}) {
  kernels::register_cpu_kernels();
  const test::Poisoned poisoned;
  return check_layer_gradients(make, input, options).text;
}

template <class Layer, class Forward>
MakeLayer make_layer(std::function<std::shared_ptr<Layer>()> make, Forward forward) {
  return [=] {
    const std::shared_ptr<Layer> layer = make();
    return LayerUnderCheck{layer, [=](const Tensor& x) { return forward(*layer, x); }};
  };
}

TEST_CASE("gradients of Linear") {
  const bool bias = GENERATE(false, true);
  CHECK(layer_errors(layer_of<Linear>(4, 3, Linear::Options{.bias = bias}), {2, 3, 4}) == "");
}

TEST_CASE("gradients of Norm") {
  const NormType type = GENERATE(NormType::layer, NormType::rms);
  const bool bias = GENERATE(false, true), affine = GENERATE(false, true), residual = GENERATE(false, true);
  const auto make = make_layer<Norm>([=] { return std::make_shared<Norm>(6, Norm::Options{.type = type, .bias = bias, .affine = affine}); },
                                     [=](const Norm& n, const Tensor& x) {
                                       const NormOutput out = n.forward(x, residual ? gelu(x) : Tensor());
                                       return add(out.y, out.sum, 1, 0.5);
                                     });
  CHECK(layer_errors(make, {2, 3, 6}) == "");
}

}  // namespace
}  // namespace heddle
