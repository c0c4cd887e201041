// Layers split over tp ranks against the whole layer, rank after rank in one process: what collectives will add up is added up here.
#include <cmath>
#include <cstring>
#include <map>
#include <memory>
#include <set>

#include "core/arena.h"
#include "core/autograd/engine.h"
#include "core/autograd/gradcheck.h"
#include "core/autograd/node.h"
#include "kernels/api/check.h"
#include "models/presets.h"
#include "models/transformer.h"
#include "parallel/attention.h"
#include "parallel/mlp.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;
using Values = std::vector<double>;

// What a rank's layer is, and what it makes of x.
struct Layer {
  std::shared_ptr<Module> module;
  std::function<Tensor(const Tensor& x)> forward;
};
using MakeLayer = std::function<Layer(const MeshShape&)>;

MeshShape rank_of(int tp, int rank) {
  return {.tp = tp, .tp_rank = rank};
}

// Every Part N(its init mean, 0.4), by its index in the unsharded tensor; `absolute`: their magnitudes.
void randomize(const Arena& arena, bool absolute) {
  for (const Layout::Place& place : arena.layout().places()) {
    const ParameterSpec& spec = arena.layout().slots()[place.slot].spec;
    const Values whole = random_input(Shape(std::span<const int64_t>(place.part.global)), place.key, spec.init_mean, 0.4).to_vector();
    double* to = flat_view(arena.values(), place.range).as<double>();
    for_each_run(place.part.box, place.part.box, whole_box(place.part.global), [&](int64_t here, int64_t global, int64_t n) {
      for (int64_t i = 0; i < n; ++i)
        to[here + i] = absolute ? std::abs(whole[static_cast<size_t>(global + i)]) : whole[static_cast<size_t>(global + i)];
    });
  }
}

struct Pass {
  Tensor y;
  Values dx;
  std::map<std::string, Values> gradients;  // Part by Part, of this rank's box
  std::vector<Part> parts;
};
Pass run(const MakeLayer& make, const MeshShape& mesh, const Values& x, Shape shape, const std::function<Tensor(const Tensor& y)>& cotangent,
         bool absolute = false) {
  kernels::register_cpu_kernels();
  const test::Poisoned poisoned;
  const Layer layer = make(mesh);
  Arena arena(*layer.module, Layout(*layer.module, mesh), Device{}, DType::f64);
  randomize(arena, absolute);
  arena.begin_step();
  Tensor in = Tensor::from(x, shape, DType::f64);
  in.set_requires_grad(true);
  Pass pass;
  pass.y = layer.forward(in);
  backward_from(pass.y, cotangent(pass.y));
  pass.dx = in.grad().to_vector();
  for (const Layout::Place& place : arena.layout().places()) {
    const double* from = flat_view(arena.grads(), place.range).as<double>();
    pass.gradients[place.part.name] = Values(from, from + place.range.size());
    pass.parts.push_back(place.part);
  }
  return pass;
}

void add_to(Values& sum, const Values& more) {
  sum.resize(more.size());
  for (size_t i = 0; i < more.size(); ++i) sum[i] += more[i];
}

// Checks |got - want| <= bound elementwise; a bound of one element is everybody's.
void check_close(const std::string& what, const Values& got, const Values& want, const Values& bound) {
  INFO(what);
  REQUIRE(got.size() == want.size());
  double worst = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double b = bound.size() == 1 ? bound[0] : bound[i], error = std::abs(got[i] - want[i]);
    if (!(error <= b)) worst = std::max(worst, std::isfinite(error) ? error : 1e300);
  }
  CHECK(worst == 0);
}

// The gradient of every unsharded Part out of the ranks': boxes beside each other; replicas added where each has a share, equal where each has all.
std::map<std::string, Values> assembled(const std::vector<Pass>& ranks) {
  std::map<std::string, Values> wholes;
  std::map<std::string, std::map<std::string, std::pair<Box, Values>>> boxes;  // by Part, then by box
  std::map<std::string, Part> parts;
  for (const Pass& pass : ranks) {
    for (const Part& part : pass.parts) {
      parts[part.name] = part;
      const Values& mine = pass.gradients.at(part.name);
      const auto [it, first] = boxes[part.name].try_emplace(box_text(part.box), part.box, mine);
      if (first) continue;
      if (part.partial_gradient) {
        add_to(it->second.second, mine);
      } else {
        INFO(part.name);
        CHECK(it->second.second == mine);
      }
    }
  }
  for (const auto& [name, pieces] : boxes) {
    const Part& part = parts[name];
    const Box whole = whole_box(part.global);
    std::vector<const Box*> tiles;
    Values& to = wholes[name];
    to.assign(static_cast<size_t>(volume(whole)), 0);
    for (const auto& entry : pieces) {
      const auto& piece = entry.second;
      tiles.push_back(&piece.first);
      for_each_run(piece.first, piece.first, whole,
                   [&](int64_t here, int64_t global, int64_t n) { std::copy_n(piece.second.begin() + here, n, to.begin() + global); });
    }
    INFO(name);
    CHECK(tiles_exactly(part.global, tiles));
  }
  return wholes;
}

std::vector<Pass> ranks_of(const MakeLayer& make, int tp, const Values& x, Shape shape, const std::function<Tensor(const Tensor&, int rank)>& dy) {
  std::vector<Pass> ranks;
  for (int rank = 0; rank < tp; ++rank) {
    ranks.push_back(run(make, rank_of(tp, rank), x, shape, [&](const Tensor& y) { return dy(y, rank); }));
  }
  return ranks;
}

Tensor cotangent(const Tensor& y) {
  return random_input(y.shape(), 77, 0, 1, DType::f64, false);
}
Tensor absolute_cotangent(const Tensor& y) {
  Values v = cotangent(y).to_vector();
  for (double& e : v) e = std::abs(e);
  return Tensor::from(v, y.shape(), DType::f64);
}

// Columns [begin, end) of (N, C) as a Tensor of its own.
Tensor columns(const Tensor& t, Range range) {
  return contiguous(slice(reshape(t, {t.numel() / t.size(-1), t.size(-1)}), 1, range.begin, range.end)).detach();
}

TEST_CASE("initial values of shards are the boxes of the unsharded tensor") {
  const int tp = GENERATE(1, 2, 3, 4);
  kernels::register_cpu_kernels();
  const auto make = [](const MeshShape& mesh) {
    struct Both final : Module {
      explicit Both(const MeshShape& m)
          : attention({.dim = 6, .heads = 12, .kv_heads = 12, .head_dim = 2, .bias = true, .qk_norm = true}, m),
            shared({.dim = 6, .heads = 12, .kv_heads = 1, .head_dim = 2}, m),
            mlp({.kind = "swiglu", .dim = 6, .hidden = 24}, m) {
        add("attention", attention), add("shared", shared), add("mlp", mlp);
      }
      CausalSelfAttention attention, shared;
      Mlp mlp;
    };
    return std::make_unique<Both>(mesh);
  };
  const auto values = [&](const MeshShape& mesh) {
    const auto module = make(mesh);
    Arena arena(*module, Layout(*module, mesh), Device{}, DType::f64);
    arena.init(3);
    std::vector<std::pair<Part, Values>> all;
    for (const Layout::Place& place : arena.layout().places()) {
      const double* from = flat_view(arena.values(), place.range).as<double>();
      all.emplace_back(place.part, Values(from, from + place.range.size()));
    }
    return all;
  };
  const auto whole = values({});
  std::vector<std::vector<std::pair<Part, Values>>> ranks;
  for (int rank = 0; rank < tp; ++rank) ranks.push_back(values(rank_of(tp, rank)));
  for (size_t p = 0; p < whole.size(); ++p) {
    const Part& part = whole[p].first;
    const Values& want = whole[p].second;
    CAPTURE(part.name);
    std::vector<const Box*> tiles;
    std::set<std::string> seen;
    for (const auto& rank : ranks) {
      const Part& mine = rank[p].first;
      const Values& got = rank[p].second;
      REQUIRE(mine.name == part.name);
      bool equal = true;
      for_each_run(mine.box, mine.box, whole_box(part.global), [&](int64_t here, int64_t global, int64_t n) {
        equal = equal && std::equal(got.begin() + here, got.begin() + here + n, want.begin() + global);
      });
      CHECK(equal);
      if (seen.insert(box_text(mine.box)).second) tiles.push_back(&mine.box);
    }
    CHECK(tiles_exactly(part.global, tiles));
    if (part.name.starts_with("attention.q.") || part.name.starts_with("mlp.") || part.name == "attention.out.weight")
      CHECK(seen.size() == static_cast<size_t>(tp));
    if (part.name.starts_with("shared.k.") || part.name.ends_with("_norm") || part.name == "attention.out.bias") CHECK(seen.size() == 1);
  }
}

TEST_CASE("the tp ranks of a Transformer have one layout, and boxes that tile every Part") {
  const int tp = GENERATE(2, 4);
  const TransformerConfig config = preset(GENERATE("tiny-gpt", "tiny-llama")).config;
  if (config.heads % tp != 0) return;
  std::map<std::string, std::map<std::string, Box>> boxes;
  std::map<std::string, std::vector<int64_t>> shapes;
  std::set<std::string> slots;  // a line a rank: names and places of all Parameters
  for (int rank = 0; rank < tp; ++rank) {
    const Transformer model(config, rank_of(tp, rank));
    const Layout layout(model, rank_of(tp, rank));
    std::string line;
    for (const Layout::Slot& slot : layout.slots()) line += concat(slot.name, " ", slot.range.begin, " ", slot.range.end, "; ");
    slots.insert(line);
    for (const Layout::Place& place : layout.places()) {
      boxes[place.part.name][box_text(place.part.box)] = place.part.box;
      shapes[place.part.name] = place.part.global;
    }
  }
  CHECK(slots.size() == 1);
  for (const auto& [name, of_ranks] : boxes) {
    INFO(name);
    std::vector<const Box*> tiles;
    for (const auto& [text, box] : of_ranks) tiles.push_back(&box);
    CHECK(tiles_exactly(shapes[name], tiles));
    if (name.ends_with("attn.q.weight") || name.ends_with("mlp.down.weight")) CHECK(of_ranks.size() == static_cast<size_t>(tp));
  }
}

// The bound of both tests of a linear layer: a number is a sum of K products in any order and at most one more addition per rank, so either run is
// within gamma_{K + tp} of the sum of magnitudes, which the same layer computes from absolute values.
Values linear_bound(const Values& magnitudes, int64_t terms) {
  Values bound(magnitudes.size());
  for (size_t i = 0; i < bound.size(); ++i) bound[i] = 2 * test::gamma(static_cast<double>(terms), DType::f64) * magnitudes[i];
  return bound;
}
Values absolute(Values v) {
  for (double& e : v) e = std::abs(e);
  return v;
}

TEST_CASE("column shards beside each other are the whole layer, their input gradients add up to its own") {
  const int tp = GENERATE(1, 2, 3, 4);
  const bool bias = GENERATE(false, true);
  CAPTURE(tp, bias);
  constexpr int64_t k = 7, n = 5;
  const std::vector<ColumnLinear::Rows> stack{
      {.name = "a", .count = 24, .unit = 2}, {.name = "b", .count = 12}, {.name = "c", .count = 3, .unit = 3, .shared = true}};
  const MakeLayer make = [&](const MeshShape& mesh) {
    const auto layer = std::make_shared<ColumnLinear>(k, stack, ColumnLinear::Options{.bias = bias}, mesh);
    return Layer{layer, [=](const Tensor& x) { return layer->forward(x); }};
  };
  const Values x = random_input({n, k}, 5).to_vector();
  const Pass whole = run(make, {}, x, {n, k}, cotangent), most = run(make, {}, absolute(x), {n, k}, absolute_cotangent, true);
  const Tensor dy = cotangent(whole.y);
  // A rank's columns of each stacked tensor; "c" is one unit, so that all ranks have it, and its gradient is dealt out in shares.
  const auto pieces = [&](int rank) {
    std::vector<std::pair<Range, Range>> all;  // in the whole, in the rank's own
    int64_t global = 0, here = 0;
    for (const auto& rows : stack) {
      Range share = tp_share(rows.name, rows.count / rows.unit, rank_of(tp, rank), rows.shared);
      share = {share.begin * rows.unit, share.end * rows.unit};
      all.push_back({{global + share.begin, global + share.end}, {here, here + share.size()}});
      global += rows.count, here += share.size();
    }
    return all;
  };
  const auto ranks = ranks_of(make, tp, x, {n, k}, [&](const Tensor&, int rank) {
    std::vector<Tensor> mine;
    for (const auto& [global, here] : pieces(rank)) mine.push_back(columns(dy, global));
    mine.back() = scale(mine.back(), 1.0 / tp);
    return concat(mine, 1);
  });
  Values dx;
  const Values want_y = whole.y.to_vector(), bound_y = linear_bound(most.y.to_vector(), k + 1);
  for (int rank = 0; rank < tp; ++rank) {
    add_to(dx, ranks[static_cast<size_t>(rank)].dx);
    for (const auto& [global, here] : pieces(rank)) {
      const Values got = columns(ranks[static_cast<size_t>(rank)].y, here).to_vector(), want = columns(whole.y, global).to_vector();
      check_close("y", got, want, columns(Tensor::from(bound_y, whole.y.shape(), DType::f64), global).to_vector());
    }
  }
  check_close("dx", dx, whole.dx, linear_bound(most.dx, 39 + tp));
  for (const auto& [name, gradient] : assembled(ranks))
    check_close(name, gradient, whole.gradients.at(name), linear_bound(most.gradients.at(name), n + tp));
}

TEST_CASE("row shards add up to the whole layer, the bias once, and its gradient is whole on every rank") {
  const int tp = GENERATE(1, 2, 3, 4);
  const bool bias = GENERATE(false, true);
  CAPTURE(tp, bias);
  constexpr int64_t k = 24, m = 7, n = 5;
  const MakeLayer make = [&](const MeshShape& mesh) {
    const auto layer = std::make_shared<RowLinear>(k, m, RowLinear::Options{.bias = bias, .unit = 2}, mesh);
    return Layer{layer, [=](const Tensor& x) { return layer->forward(x); }};
  };
  const Tensor x = random_input({n, k}, 5, 0, 1, DType::f64, false);
  const Pass whole = run(make, {}, x.to_vector(), {n, k}, cotangent), most = run(make, {}, absolute(x.to_vector()), {n, k}, absolute_cotangent, true);
  std::vector<Pass> ranks;
  Values y;
  for (int rank = 0; rank < tp; ++rank) {
    Range mine = tp_share("columns", k / 2, rank_of(tp, rank));
    mine = {2 * mine.begin, 2 * mine.end};
    ranks.push_back(run(make, rank_of(tp, rank), columns(x, mine).to_vector(), {n, mine.size()}, cotangent));
    add_to(y, ranks.back().y.to_vector());
    const Tensor dx = Tensor::from(whole.dx, {n, k}, DType::f64), bound = Tensor::from(linear_bound(most.dx, m), {n, k}, DType::f64);
    check_close("dx", ranks.back().dx, columns(dx, mine).to_vector(), columns(bound, mine).to_vector());
  }
  check_close("y", y, whole.y.to_vector(), linear_bound(most.y.to_vector(), k + 1 + tp));
  for (const auto& [name, gradient] : assembled(ranks))
    check_close(name, gradient, whole.gradients.at(name), linear_bound(most.gradients.at(name), n));
}

// A branch is at most four sums deep, each of at most `longest` terms, and backward as deep again; between them stand functions of slope below 2. A
// sum's terms are larger than the sum by its length at most, so an element is within 8 gamma_n n^2 of the largest number around it.
double branch_bound(int64_t longest, const Values& want) {
  double largest = 1;
  for (double v : want) largest = std::max(largest, std::abs(v));
  const double n = static_cast<double>(longest);
  return 8 * test::gamma(n, DType::f64) * n * n * largest;
}

void check_branch(const MakeLayer& make, int tp, const Tensor& x, int64_t longest) {
  const Pass whole = run(make, {}, x.to_vector(), x.shape(), cotangent);
  const auto ranks = ranks_of(make, tp, x.to_vector(), x.shape(), [](const Tensor& y, int) { return cotangent(y); });
  Values y, dx;
  for (const Pass& rank : ranks) add_to(y, rank.y.to_vector()), add_to(dx, rank.dx);
  check_close("y", y, whole.y.to_vector(), {branch_bound(longest, whole.y.to_vector())});
  check_close("dx", dx, whole.dx, {branch_bound(longest, whole.dx)});
  for (const auto& [name, gradient] : assembled(ranks)) {
    check_close(name, gradient, whole.gradients.at(name), {branch_bound(longest, whole.gradients.at(name))});
  }
}

TEST_CASE("attention split by heads adds up to the whole, with KV heads split or shared") {
  const int tp = GENERATE(1, 2, 3, 4);
  const int64_t kv_heads = GENERATE(12, 4, 2, 1);
  const bool rich = GENERATE(false, true);  // biases, QK norm and RoPE; a window and documents without
  CAPTURE(tp, kv_heads, rich);
  kernels::register_cpu_kernels();
  const CausalSelfAttention::Options options{
      .dim = 6, .heads = 12, .kv_heads = kv_heads, .head_dim = 4, .bias = rich, .qk_norm = rich, .window = rich ? 0 : 3};
  const Tensor table = rich ? rope_table(5, 4, 100) : Tensor();
  const std::vector<int32_t> starts{0, 0, 2, 2, 2, 0, 0, 0, 0, 4};
  const Tensor documents = rich ? Tensor() : Tensor::from(std::span<const int32_t>(starts), {2, 5});
  const MakeLayer make = [&](const MeshShape& mesh) {
    const auto layer = std::make_shared<CausalSelfAttention>(options, mesh);
    return Layer{layer, [=](const Tensor& x) { return layer->forward(x, table, documents); }};
  };
  if (kv_heads % tp != 0 && tp % kv_heads != 0) {
    CHECK_THROWS_WITH(make(rank_of(tp, 0)), Contains("KV heads") && Contains(concat(kv_heads, " over ", tp, " ranks")));
    return;
  }
  check_branch(make, tp, random_input({2, 5, 6}, 5, 0, 1, DType::f64, false), 12 * 4 + 6 + 5);
}

TEST_CASE("cached attention split by heads adds up to the whole") {
  const int tp = GENERATE(2, 4);
  const int64_t kv_heads = GENERATE(4, 2, 1);
  kernels::register_cpu_kernels();
  const CausalSelfAttention::Options options{.dim = 6, .heads = 4, .kv_heads = kv_heads, .head_dim = 4, .bias = true};
  const Tensor x = random_input({2, 5, 6}, 5, 0, 1, DType::f64, false);
  const auto forward = [&](const MeshShape& mesh) {
    const CausalSelfAttention layer(options, mesh);
    Arena arena(layer, Layout(layer, mesh), Device{}, DType::f64);
    randomize(arena, false);
    KvCache cache = layer.make_cache(2, 5);
    const Values first = layer.forward(contiguous(slice(x, 1, 0, 3)), {}, cache).to_vector();
    Values all = layer.forward(contiguous(slice(x, 1, 3, 5)), {}, cache).to_vector();
    all.insert(all.end(), first.begin(), first.end());
    return all;
  };
  const Values whole = forward({});
  Values sum;
  for (int rank = 0; rank < tp; ++rank) add_to(sum, forward(rank_of(tp, rank)));
  check_close("y", sum, whole, {branch_bound(4 * 4 + 6 + 5, whole)});
}

TEST_CASE("an MLP of every kind, split by its hidden size, adds up to the whole") {
  const int tp = GENERATE(1, 2, 3, 4);
  for (const MlpKind& kind : mlp_kinds()) {
    for (const bool bias : {false, true}) {
      if (bias && !kind.biases) continue;
      CAPTURE(tp, kind.name, bias);
      const MakeLayer make = [&](const MeshShape& mesh) {
        const auto layer = std::make_shared<Mlp>(Mlp::Options{.kind = kind.name, .dim = 6, .hidden = 24, .bias = bias}, mesh);
        return Layer{layer, [=](const Tensor& x) { return layer->forward(x); }};
      };
      check_branch(make, tp, random_input({2, 5, 6}, 5, 0, 1, DType::f64, false), 24 + 6 + 10);
    }
  }
}

TEST_CASE("what does not divide over the ranks is refused by its numbers") {
  CHECK_THROWS_WITH(tp_share("heads", 6, rank_of(4, 0)), Contains("heads: 6 over 4 ranks"));
  CHECK_THROWS_WITH(tp_share("heads", 6, rank_of(2, 2)), Contains("rank 2 of 2"));
  CHECK_THROWS_WITH(CausalSelfAttention({.dim = 6, .heads = 3}, rank_of(2, 0)), Contains("3 over 2 ranks"));
  CHECK_THROWS_WITH(Mlp({.dim = 4, .hidden = 6}, rank_of(4, 1)), Contains("\"up\"") && Contains("6 over 4 ranks"));
  CHECK_THROWS_WITH(RowLinear(6, 4, {.unit = 4}), Contains("6 columns in units of 4"));
}

}  // namespace
}  // namespace heddle
