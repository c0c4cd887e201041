// Modules: names, order, ties; and what a parameter says about its shard.
#include "core/nn/module.h"

#include "core/nn/layers.h"
#include "kernels/api/check.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;

ParameterSpec spec(std::vector<int64_t> shape) {
  return {.kind = ParamKind::matrix, .shard = {.global = std::move(shape)}};
}

class Inner final : public Module {
 public:
  Inner() { weight = add("weight", spec({2, 3})); }
  Parameter weight;
};

class Outer final : public Module {
 public:
  Outer() {
    first = add("first", spec({4}));
    add("a.0", left);
    add("a.1", right);
    last = add("last", spec({5, 1}));
    tie("again", left.weight);
  }
  using Module::add;
  Inner left, right;
  Parameter first, last;
};

TEST_CASE("parameters come in registration order under dotted names, a tied one once") {
  const Outer module;
  std::vector<std::string> names;
  for (const Parameter& p : module.parameters()) names.push_back(p.name());
  CHECK(names == std::vector<std::string>{"first", "a.0.weight", "a.1.weight", "last"});
  CHECK(module.parameter_count() == 4 + 6 + 6 + 5);
  const std::vector<Tensor> leaves = module.leaves();
  REQUIRE(leaves.size() == 4);
  CHECK(leaves[1].same(module.left.weight.tensor()));
  for (const Tensor& t : leaves) CHECK((t.requires_grad() && t.is_leaf()));
}

TEST_CASE("names are paths from the module that was asked, whoever asks first") {
  const Outer module;
  const auto all = module.parameters(), inner = module.left.parameters();
  CHECK(all[1].name() == "a.0.weight");
  CHECK(inner[0].name() == "weight");
  CHECK(inner[0].same(all[1]));
  CHECK(module.left.weight.name() == "weight");
}

TEST_CASE("a name is registered once") {
  Outer module;
  CHECK_THROWS_WITH(module.add("first", spec({1})), Contains("\"first\" is registered twice"));
  CHECK_THROWS_WITH(module.add("a.1", module.right), Contains("\"a.1\" is registered twice"));
}

TEST_CASE("a sliced parameter has the shape of its slice and remembers the whole") {
  ParameterSpec s = spec({6, 8});
  s.shard.axis = 1, s.shard.slice = {2, 5};
  const Parameter p("w", s);
  CHECK(p.tensor().shape() == Shape{6, 3});
  CHECK(p.spec().shard.global == std::vector<int64_t>{6, 8});
  CHECK(p.spec().shard.grad_sum == static_cast<AxisSet>(Axis::dp));
  CHECK(p.spec().shard.norm_owner == 0);
}

TEST_CASE("a slice outside its parameter is refused") {
  ParameterSpec s = spec({6, 8});
  s.shard.axis = 1, s.shard.slice = {2, 9};
  CHECK_THROWS_WITH(Parameter("w", s), Contains("[2, 9)") && Contains("(6, 8)"));
  s.shard.axis = 2, s.shard.slice = {0, 1};
  CHECK_THROWS_WITH(Parameter("w", s), Contains("axis 2"));
}

TEST_CASE("an undefined parameter is no tensor") {
  CHECK_FALSE(tensor_or_none(Parameter()));
  const Inner module;
  CHECK(tensor_or_none(module.weight).same(module.weight.tensor()));
}

TEST_CASE("layers name and type their parameters") {
  const CausalSelfAttention attention({.dim = 8, .heads = 4, .kv_heads = 2, .head_dim = 4, .bias = true, .qk_norm = true});
  std::vector<std::string> names;
  std::vector<ParamKind> kinds;
  std::vector<Shape> shapes;
  for (const Parameter& p : attention.parameters()) names.push_back(p.name()), kinds.push_back(p.spec().kind), shapes.push_back(p.tensor().shape());
  CHECK(names == std::vector<std::string>{"qkv.weight", "qkv.bias", "q_norm", "k_norm", "out.weight", "out.bias"});
  CHECK(kinds == std::vector{ParamKind::matrix, ParamKind::bias, ParamKind::gain, ParamKind::gain, ParamKind::matrix, ParamKind::bias});
  CHECK(shapes == std::vector<Shape>{{32, 8}, {32}, {4}, {4}, {8, 16}, {8}});
}

}  // namespace
}  // namespace heddle
