// Every layer of core/nn/layers.h with each of its options, against central differences.
#include "core/nn/layer_check.h"
#include "core/nn/layers.h"
#include "core/nn/mlp.h"
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
  const bool bias = GENERATE(false, true), residual = GENERATE(false, true);
  const auto make = make_layer<Linear>([=] { return std::make_shared<Linear>(4, 4, Linear::Options{.bias = bias}); },
                                       [=](const Linear& l, const Tensor& x) { return l.forward(x, residual ? x : Tensor()); });
  CHECK(layer_errors(make, {2, 3, 4}) == "");
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

TEST_CASE("gradients of CausalSelfAttention") {
  const bool bias = GENERATE(false, true), qk_norm = GENERATE(false, true), rope = GENERATE(false, true);
  const int64_t kv_heads = GENERATE(2, 1);
  CausalSelfAttention::Options options{.dim = 6, .heads = 2, .kv_heads = kv_heads, .head_dim = 4, .bias = bias, .qkv_bias = !bias && rope};
  options.qk_norm = qk_norm;
  options.qk_gain = !rope;
  options.window = bias ? 3 : 0;
  CAPTURE(bias, qk_norm, rope, kv_heads);
  kernels::register_cpu_kernels();
  const Tensor table = rope ? rope_table(5, 4, 100) : Tensor();
  const std::vector<int32_t> starts{0, 0, 2, 2, 2};
  const Tensor documents = qk_norm ? Tensor::from(std::span<const int32_t>(starts), {1, 5}) : Tensor();
  const auto make = make_layer<CausalSelfAttention>([=] { return std::make_shared<CausalSelfAttention>(options); },
                                                    [=](const CausalSelfAttention& a, const Tensor& x) { return a.forward(x, x, table, documents); });
  CHECK(layer_errors(make, {1, 5, 6}) == "");
}

TEST_CASE("gradients of Mlp") {
  for (const MlpKind& kind : mlp_kinds()) {  // one that is added is checked too
    for (const bool bias : {false, true}) {
      if (bias && !kind.biases) continue;
      CAPTURE(kind.name, bias);
      const auto make = make_layer<Mlp>([&] { return std::make_shared<Mlp>(Mlp::Options{.kind = kind.name, .dim = 4, .hidden = 6, .bias = bias}); },
                                        [](const Mlp& m, const Tensor& x) { return m.forward(x, x); });
      CHECK(layer_errors(make, {2, 3, 4}, {.step = kind.name == "relu2" ? 1e-5 : 1e-3}) == "");
    }
  }
}

TEST_CASE("layers refuse sizes that do not fit") {
  using Catch::Matchers::Contains;
  CHECK_THROWS_WITH(CausalSelfAttention({.dim = 8, .heads = 3}), Contains("not divisible by 3"));
  CHECK_THROWS_WITH(CausalSelfAttention({.dim = 8, .heads = 4, .kv_heads = 3}), Contains("4 heads") && Contains("3 KV heads"));
  CHECK_THROWS_WITH(Mlp({.kind = "swiglu", .dim = 4, .hidden = 4, .bias = true}), Contains("no biases"));
}

}  // namespace
}  // namespace heddle
