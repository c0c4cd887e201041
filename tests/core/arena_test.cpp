// The arena: one buffer of values, one of gradients, the same offsets.
#include "core/arena.h"

#include "core/autograd/engine.h"
#include "core/nn/layers.h"
#include "kernels/api/optimizer.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

// Sizes on purpose off every alignment, kinds mixed, one parameter tied.
class Odd final : public Module {
 public:
  explicit Odd(Range rows = {0, 7}, Range columns = {0, 5}) : norm_(5, {}) {
    table = add("table", {.kind = ParamKind::embedding, .parts = {{.global = {7, 5}, .box = {rows, columns}}}, .init_std = 0.5f});
    add("norm", norm_);
    up = add("up", {.kind = ParamKind::matrix, .parts = {{.global = {130, 5}}}, .init_std = 0.1f});
    scalar = add("scalar", {.kind = ParamKind::bias, .parts = {{.global = {1}}}, .init_std = 1, .init_mean = 3});
    down = add("down", {.kind = ParamKind::matrix, .parts = {{.global = {5, 3}}}, .init_std = 0.1f});
    tie("head", table);
  }
  Parameter table, up, scalar, down;

 private:
  Norm norm_;
};

std::vector<double> padding_of(const Arena& arena, const Tensor& flat) {
  const std::vector<double> all = flat.to_vector();
  std::vector<bool> used(all.size());
  for (const Parameter& p : arena.parameters()) {
    for (int64_t i = arena.range(p).begin; i < arena.range(p).end; ++i) used[static_cast<size_t>(i)] = true;
  }
  std::vector<double> padding;
  for (size_t i = 0; i < all.size(); ++i) {
    if (!used[i]) padding.push_back(all[i]);
  }
  return padding;
}
bool all_zero(const std::vector<double>& v) {
  return std::all_of(v.begin(), v.end(), [](double x) { return x == 0; });
}

DEVICE_TEST_CASE("matrices first, then the rest, each in registration order, at multiples of 128 elements") {
  const test::Poisoned poisoned;
  Odd module;
  const Arena arena(module, test::device(), DType::f32);
  std::vector<std::string> names;
  for (const Parameter& p : arena.parameters()) names.push_back(p.name());
  CHECK(names == std::vector<std::string>{"up", "down", "table", "norm.weight", "norm.bias", "scalar"});
  int64_t end = 0;
  for (const Parameter& p : arena.parameters()) {
    const Range r = arena.range(p);
    CHECK(r.begin % kernels::kArenaBlock == 0);
    CHECK(r.begin >= end);
    CHECK(r.begin < end + kernels::kArenaBlock);
    CHECK(r.size() == p.tensor().numel());
    end = r.end;
  }
  CHECK(arena.layout().section(Section::matrix).end == arena.range(module.table).begin);
  CHECK(arena.layout().size() % kernels::kArenaBlock == 0);
  CHECK(all_zero(arena.values().to_vector()));
  CHECK(all_zero(arena.grads().to_vector()));
}

DEVICE_TEST_CASE("parameters and their gradients are windows of the arena") {
  const DType dtype = GENERATE(DType::f32, DType::bf16, DType::f64);
  Odd module;
  Arena arena(module, test::device(), dtype);
  CHECK(arena.grads().dtype() == accumulator_of(dtype));
  arena.init(3);
  for (const Parameter& p : arena.parameters()) {
    const Range r = arena.range(p);
    CHECK(p.tensor().dtype() == dtype);
    CHECK(p.tensor().impl().data == arena.values().impl().data + r.begin * size_of(dtype));
    CHECK(p.tensor().grad().impl().data == arena.grads().impl().data + r.begin * size_of(arena.grads().dtype()));
    CHECK(p.tensor().grad().shape() == p.tensor().shape());
    p.tensor().clear_grad();
    CHECK(p.tensor().grad());  // an arena's gradient is never let go
  }
  CHECK(all_zero(padding_of(arena, arena.values())));
  CHECK(module.scalar.tensor().item() != 3);
}

DEVICE_TEST_CASE("without gradients no parameter asks for one; a frozen one never does") {
  Odd module;
  const Arena inference(module, test::device(), DType::bf16, false);
  CHECK_FALSE(inference.grads());
  CHECK(inference.leaves().empty());
  for (const Parameter& p : inference.parameters()) CHECK_FALSE((p.tensor().requires_grad() || p.tensor().grad()));

  struct Half final : Module {
    Half()
        : kept(add("kept", {.parts = {{.global = {9, 3}}}, .init_std = 1, .frozen = true})),
          trained(add("trained", {.parts = {{.global = {3, 9}}}, .init_std = 1})) {}
    Parameter kept, trained;
  };
  Half half;
  Arena arena(half, test::device(), DType::f32);
  arena.init(1);
  CHECK(arena.grads().numel() == 128);
  CHECK(arena.values().numel() == 256);
  REQUIRE(arena.leaves().size() == 1);
  const std::vector<double> before = half.kept.tensor().to_vector();
  const Tensor x = test::random({2, 3}, 1, 0, 1, DType::f32, false);
  backward(sum(linear(linear(x, half.kept), half.trained)), arena.leaves());
  CHECK_FALSE(half.kept.tensor().grad());
  CHECK_FALSE(all_zero(half.trained.tensor().grad().to_vector()));
  CHECK(half.kept.tensor().to_vector() == before);
}

DEVICE_TEST_CASE("initial values depend on the seed and the name, not on sharding or on other parameters") {
  Odd whole;
  Arena arena(whole, test::device(), DType::f32);
  arena.init(3);
  const std::vector<double> table = whole.table.tensor().to_vector(), up = whole.up.tensor().to_vector();
  {
    struct More final : Module {  // other parameters around them change nothing
      More() {
        add("first", {.parts = {{.global = {11, 5}}}, .init_std = 1});
        add("", odd);
      }
      Odd odd;
    };
    More more;
    Arena other(more, Layout(more, {.dp = 5}), test::device(), DType::f32);
    other.init(3);
    CHECK(more.odd.table.tensor().to_vector() == table);
    CHECK(more.odd.up.tensor().to_vector() == up);
    other.init(4);
    CHECK(more.odd.table.tensor().to_vector() != table);
  }
  {
    const Range rows = GENERATE(Range{0, 3}, Range{3, 7}, Range{1, 2});
    Odd shard(rows);
    CHECK(shard.table.tensor().shape() == Shape{rows.size(), 5});
    Arena local(shard, test::device(), DType::f32);
    local.init(3);
    CHECK(shard.table.tensor().to_vector() == std::vector<double>(table.begin() + rows.begin * 5, table.begin() + rows.end * 5));
    CHECK(shard.up.tensor().to_vector() == up);
  }
  {
    const Range columns = GENERATE(Range{0, 2}, Range{2, 5});
    Odd shard({0, 7}, columns);
    Arena local(shard, test::device(), DType::f32);
    local.init(3);
    std::vector<double> want;
    for (int64_t r = 0; r < 7; ++r) want.insert(want.end(), table.begin() + r * 5 + columns.begin, table.begin() + r * 5 + columns.end);
    CHECK(shard.table.tensor().to_vector() == want);
  }
}

DEVICE_TEST_CASE("initial values are the constants and the distribution their specs say") {
  Linear big(100, 200, {.bias = true, .init_std = 0.5f});
  Norm norm(64, {});
  Arena arena(big, test::device(), DType::f32), norms(norm, test::device(), DType::f32);
  arena.init(1), norms.init(1);
  double sum = 0, squares = 0;
  for (double v : big.weight().tensor().to_vector()) sum += v, squares += v * v;
  // 20000 draws: the mean has a standard error of 0.0035, the variance one of 0.25 sqrt(2 / 20000) = 0.0025; five of each.
  CHECK(std::abs(sum / 20000) < 0.018);
  CHECK(std::abs(squares / 20000 - 0.25) < 0.0125);
  for (const Parameter& p : norms.parameters()) {
    CHECK(p.tensor().to_vector() == std::vector<double>(64, p.spec().kind == ParamKind::gain ? 1.0 : 0.0));
  }
  CHECK(all_zero(arena.parameters()[1].tensor().to_vector()));
}

DEVICE_TEST_CASE("begin_step makes the next write = and the one after it +=") {
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  Linear layer(3, 2, {.bias = true, .init_std = 1});
  Arena arena(layer, test::device(), dtype);
  arena.init(1);
  const Tensor x = test::random({4, 3}, 1, 0, 1, dtype, false);
  const auto pass = [&] {
    backward(sum(layer.forward(x)), arena.leaves());
    return arena.grads().to_vector();
  };
  const auto once = pass();
  auto twice = once;
  for (double& v : twice) v *= 2;
  CHECK(pass() == twice);
  arena.begin_step();
  CHECK(pass() == once);
  CHECK(all_zero(padding_of(arena, arena.grads())));
}

DEVICE_TEST_CASE("a parameter of another module is not in the arena") {
  Odd module, other;
  const Arena arena(module, test::device(), DType::f32);
  CHECK_THROWS_WITH(arena.range(other.up), Catch::Matchers::Contains("\"up\" is not in this arena"));
  CHECK_THROWS_WITH(Arena(other, test::device(), DType::i32), Catch::Matchers::Contains("i32"));
}

}  // namespace
}  // namespace heddle
