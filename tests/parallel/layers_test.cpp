// The layers of parallel/ on one rank: every option against central differences, names and kinds of parameters, sizes that do not fit.
#include "core/nn/layer_check.h"
#include "core/ops/ops.h"
#include "kernels/api/check.h"
#include "parallel/attention.h"
#include "parallel/mlp.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;

std::string layer_errors(const MakeLayer& make, Shape input, const GradCheckOptions& options = {}) {
  kernels::register_cpu_kernels();
  const test::Poisoned poisoned;
  return check_layer_gradients(make, input, options).text;
}

TEST_CASE("gradients of ColumnLinear and RowLinear") {
  const bool bias = GENERATE(false, true);
  const std::vector<ColumnLinear::Rows> stack{{.name = "a", .count = 3}, {.name = "b", .count = 2}};
  CHECK(layer_errors(layer_of<ColumnLinear>(4, stack, ColumnLinear::Options{.bias = bias}), {2, 3, 4}) == "");
  CHECK(layer_errors(layer_of<RowLinear>(4, 3, RowLinear::Options{.bias = bias}), {2, 3, 4}) == "");
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
  const MakeLayer make = [&] {
    const auto layer = std::make_shared<CausalSelfAttention>(options);
    return LayerUnderCheck{layer, [=](const Tensor& x) { return layer->forward(x, table, documents); }};
  };
  CHECK(layer_errors(make, {1, 5, 6}) == "");
}

TEST_CASE("gradients of Mlp") {
  for (const MlpKind& kind : mlp_kinds()) {  // one that is added is checked too
    for (const bool bias : {false, true}) {
      if (bias && !kind.biases) continue;
      CAPTURE(kind.name, bias);
      const MakeLayer make = layer_of<Mlp>(Mlp::Options{.kind = kind.name, .dim = 4, .hidden = 6, .bias = bias});
      CHECK(layer_errors(make, {2, 3, 4}, {.step = kind.name == "relu2" ? 1e-5 : 1e-3}) == "");
    }
  }
}

TEST_CASE("layers refuse sizes that do not fit") {
  CHECK_THROWS_WITH(CausalSelfAttention({.dim = 8, .heads = 3}), Contains("not divisible by 3"));
  CHECK_THROWS_WITH(CausalSelfAttention({.dim = 8, .heads = 4, .kv_heads = 3}), Contains("4 heads") && Contains("3 KV heads"));
  CHECK_THROWS_WITH(Mlp({.kind = "swiglu", .dim = 4, .hidden = 4, .bias = true}), Contains("no biases"));
}

TEST_CASE("layers name and type their parameters") {
  const CausalSelfAttention attention({.dim = 8, .heads = 4, .kv_heads = 2, .head_dim = 4, .bias = true, .qk_norm = true});
  std::vector<std::string> names;
  std::vector<ParamKind> kinds;
  std::vector<Shape> shapes;
  for (const Parameter& p : attention.parameters()) names.push_back(p.name()), kinds.push_back(p.spec().kind), shapes.push_back(p.tensor().shape());
  CHECK(names == std::vector<std::string>{"qkv.weight", "qkv.bias", "q_norm", "k_norm", "out.weight", "out.bias"});
  std::vector<std::string> parts;
  for (const Part& part : attention.parameters()[0].parts()) parts.push_back(part.name + shape_text(Shape(part.global)));
  for (const Part& part : attention.parameters()[1].parts()) parts.push_back(part.name + shape_text(Shape(part.global)));
  CHECK(parts == std::vector<std::string>{"q.weight(16, 8)", "k.weight(8, 8)", "v.weight(8, 8)", "q.bias(16)", "k.bias(8)", "v.bias(8)"});
  CHECK(kinds == std::vector{ParamKind::matrix, ParamKind::bias, ParamKind::gain, ParamKind::gain, ParamKind::matrix, ParamKind::bias});
  CHECK(shapes == std::vector<Shape>{{32, 8}, {32}, {4}, {4}, {8, 16}, {8}});

  names.clear();
  for (const Parameter& p : Mlp({.kind = "swiglu", .dim = 4, .hidden = 6}).parameters()) names.push_back(p.name());
  for (const Parameter& p : Mlp({.kind = "gelu", .dim = 4, .hidden = 6, .bias = true}).parameters()) names.push_back(p.name());
  CHECK(names == std::vector<std::string>{"gateup.weight", "down.weight", "up.weight", "up.bias", "down.weight", "down.bias"});
}

}  // namespace
}  // namespace heddle
