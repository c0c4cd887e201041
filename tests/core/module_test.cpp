// Modules: names, order, ties; and what a parameter says about its shard.
#include "core/nn/module.h"

#include "kernels/api/check.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;

ParameterSpec spec(std::vector<int64_t> shape) {
  return {.kind = ParamKind::matrix, .parts = {{.global = std::move(shape)}}};
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

TEST_CASE("a parameter has the shape of its parts' local boxes, stacked, and remembers the wholes") {
  const Parameter p("w", {.parts = {{.name = "a", .global = {6, 8}, .box = {{2, 4}, {2, 5}}}, {.name = "b", .global = {4, 3}}}});
  CHECK(p.tensor().shape() == Shape{6, 3});
  const std::vector<Part> parts = p.parts();
  REQUIRE(parts.size() == 2);
  CHECK((parts[0].name == "a" && parts[0].global == std::vector<int64_t>{6, 8} && parts[0].box == Box{{2, 4}, {2, 5}}));
  CHECK((parts[1].name == "b" && parts[1].box == whole_box(parts[1].global)));
  CHECK(Parameter("w", spec({6, 8})).parts()[0].name == "w");
  CHECK_FALSE(Parameter("w", {.parts = {{.global = {2}}}, .frozen = true}).tensor().requires_grad());
}

TEST_CASE("padding is memory behind the parts: no parameter of anybody's, in no box") {
  struct Padded final : Module {
    Padded() {
      add("w", {.parts = {{.global = {5, 3}, .box = {{4, 5}, {0, 3}}}}, .padding = 1}), add("b", {.parts = {{.global = {5}}}, .padding = 2});
    }
  };
  const Padded module;
  const auto all = module.parameters();
  CHECK(all[0].tensor().shape() == Shape{2, 3});
  CHECK(all[1].tensor().shape() == Shape{7});
  CHECK(all[0].parts()[0].box == Box{{4, 5}, {0, 3}});
  CHECK(module.parameter_count() == 3 + 5);
  CHECK_THROWS_WITH(Parameter("w", {.parts = {{.global = {5}}}, .padding = -1}), Contains("-1 rows of padding"));
}

TEST_CASE("parts that leave their tensor or do not stack are refused") {
  CHECK_THROWS_WITH(Parameter("w", {.parts = {{.global = {6, 8}, .box = {{0, 6}, {2, 9}}}}}), Contains("[0:6, 2:9]") && Contains("(6, 8)"));
  CHECK_THROWS_WITH(Parameter("w", {.parts = {{.global = {6, 8}, .box = {{0, 6}}}}}), Contains("[0:6]"));
  CHECK_THROWS_WITH(Parameter("w", {.parts = {{.global = {6, 8}}, {.global = {6, 7}}}}), Contains("(6, 7)") && Contains("does not stack"));
  CHECK_THROWS_WITH(Parameter("w", {.parts = {{.global = {6, 8}}, {.global = {6}}}}), Contains("does not stack"));
  CHECK_THROWS_WITH(Parameter("w", {}), Contains("no parts"));
  CHECK_THROWS_WITH(Parameter("w", {.parts = {{}}}), Contains("rank 0"));
}

TEST_CASE("a child without a name registers as its parent, and parts are named from there") {
  struct Child final : Module {
    Child() { add("ab", {.parts = {{.name = "a", .global = {2, 3}}, {.name = "b", .global = {1, 3}}}}); }
  };
  struct Parent final : Module {
    Parent() {
      begin_bucket("first");
      add("", child);
      add("x.y", named);
      begin_bucket("second");
      add("last", spec({1}));
    }
    Child child, named;
  };
  struct Root final : Module {
    Root() { add("root", parent); }
    Parent parent;
  };
  const Root root;
  std::vector<std::string> names, parts, buckets;
  for (const Parameter& p : root.parameters()) {
    names.push_back(p.name()), buckets.push_back(p.bucket());
    for (const Part& part : p.parts()) parts.push_back(part.name);
  }
  CHECK(names == std::vector<std::string>{"root.ab", "root.x.y.ab", "root.last"});
  CHECK(parts == std::vector<std::string>{"root.a", "root.b", "root.x.y.a", "root.x.y.b", "root.last"});
  CHECK(buckets == std::vector<std::string>{"root.first", "root.first", "root.second"});
}

TEST_CASE("an undefined parameter is no weight") {
  CHECK_FALSE(Weight(Parameter()));
  const Inner module;
  CHECK(Weight(module.weight).slot().same(module.weight.tensor()));
}

}  // namespace
}  // namespace heddle
