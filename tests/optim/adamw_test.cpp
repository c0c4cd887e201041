// AdamW over an arena: who decays, who moves how far, which copy is rounded, what a checkpoint gets.
#include <algorithm>
#include <cmath>
#include <memory>
#include <set>

#include "tests/optim/support.h"

namespace heddle {
namespace {

using test::Bound;
using test::EveryKind;
using test::OptimCase;
using test::take_step;

constexpr AdamWOptions kOptions{.lr = 0.02f, .weight_decay = 0.25f, .beta1 = 0.875f, .beta2 = 0.96875f, .eps = 1e-6f};

float outer_scale(const Layout::Slot& slot) {
  return slot.name == "square.weight" ? 4.0f : 1.0f;
}

// One parameter in float64, by the paper (Loshchilov and Hutter 2019, algorithm 2) and the rule of groups: matrices and embeddings decay.
struct Oracle {
  std::vector<double> master, m, v, size;  // size: the sum of the magnitudes behind each master
  double rate, decay;

  Oracle(const Layout::Slot& p, std::vector<double> start) : master(std::move(start)), m(master.size()), v(master.size()) {
    for (double w : master) size.push_back(std::abs(w));
    rate = static_cast<double>(kOptions.lr) * p.spec.lr_scale * outer_scale(p);
    decay = p.spec.kind == ParamKind::matrix || p.spec.kind == ParamKind::embedding ? kOptions.weight_decay : 0;
  }
  void step(const std::vector<double>& grad, const StepState& s) {
    const double t = static_cast<double>(s.adam_t) + 1, b1 = kOptions.beta1, b2 = kOptions.beta2;
    for (size_t i = 0; i < master.size(); ++i) {
      const double g = grad[i] * s.clip_scale, m_size = b1 * std::abs(m[i]) + (1 - b1) * std::abs(g);
      m[i] = b1 * m[i] + (1 - b1) * g;
      v[i] = b2 * v[i] + (1 - b2) * g * g;
      const double scale = 1 / (1 - std::pow(b1, t)) / (std::sqrt(v[i] / (1 - std::pow(b2, t))) + kOptions.eps);
      size[i] += rate * s.lr * (m_size * scale + decay * std::abs(master[i]));
      master[i] -= rate * s.lr * (m[i] * scale + decay * master[i]);
    }
  }
};

// A schedule, clipping, and one withheld update.
StepState step_state(int step, uint64_t adam_t) {
  StepState s;
  s.step = static_cast<uint64_t>(step);
  s.adam_t = adam_t;
  s.lr = 1 - 0.125f * static_cast<float>(step);
  s.clip_scale = step % 3 == 1 ? 0.3f : 1.0f;
  s.apply = step != 4;
  return s;
}

// Roundings between the old master and the new one in one step, all told: g 1, m 4, v 5 (half of them after the root), corrections, root, sum and
// quotient 6, rate 1, decay 3, difference 1.
constexpr double kRoundings = 21;

DEVICE_TEST_CASE("adamw in f64 follows its oracle over eight steps, one of them withheld") {
  OptimCase c(DType::f64);
  const auto optimizer = make_adamw(c.arena, kOptions, outer_scale);
  const Layout& layout = c.arena.layout();
  std::vector<Oracle> want;
  for (const Layout::Place& place : layout.places()) {
    want.emplace_back(layout.slots()[place.slot], test::values_of(flat_view(c.arena.values(), place.range)));
  }
  uint64_t adam_t = 0;
  for (int step = 0; step < 8; ++step) {
    c.draw_gradients(static_cast<uint32_t>(step));
    const StepState s = step_state(step, adam_t);
    take_step(*optimizer, s);
    if (!s.apply) continue;
    ++adam_t;
    for (size_t i = 0; i < want.size(); ++i) want[i].step(test::values_of(flat_view(c.arena.grads(), layout.places()[i].range)), s);
  }
  const auto got = test::entries(*optimizer);
  for (size_t i = 0; i < want.size(); ++i) {
    const Layout::Place& place = layout.places()[i];
    CAPTURE(place.part.name);
    // Errors of eight steps add up; nothing here amplifies them (|1 - rate decay| < 1).
    CHECK_CLOSE(test::on_host(got.at("model." + place.part.name)).view(), want[i].master, want[i].size, Bound{DType::f64, 8 * kRoundings});
    CHECK_CLOSE(test::on_host(flat_view(c.arena.values(), place.range)).view(), want[i].master, want[i].size, Bound{DType::f64, 8 * kRoundings});
  }
}

DEVICE_TEST_CASE("adamw in f32 and with bf16 values: each step within rounding of the oracle from the same state") {
  const DType type = GENERATE(DType::f32, DType::bf16);
  OptimCase c(type);
  const auto optimizer = make_adamw(c.arena, kOptions, outer_scale);
  uint64_t adam_t = 0;
  for (int step = 0; step < 6; ++step) {
    c.draw_gradients(static_cast<uint32_t>(step));
    const auto state = test::entries(*optimizer);
    std::vector<Oracle> want;
    const StepState s = step_state(step, adam_t);
    for (const Layout::Place& place : c.arena.layout().places()) {
      const std::string& name = place.part.name;
      Oracle& o = want.emplace_back(c.arena.layout().slots()[place.slot], test::values_of(state.at("model." + name)));
      o.m = test::values_of(state.at("optim.m." + name));
      o.v = test::values_of(state.at("optim.v." + name));
      if (s.apply) o.step(test::values_of(flat_view(c.arena.grads(), place.range)), s);
    }
    take_step(*optimizer, s);
    adam_t += static_cast<uint64_t>(s.apply);
    for (size_t k = 0; k < want.size(); ++k) {
      const Layout::Place& place = c.arena.layout().places()[k];
      CAPTURE(step, place.part.name);
      const Tensor master = test::on_host(state.at("model." + place.part.name));
      CHECK_CLOSE(master.view(), want[k].master, want[k].size, Bound{DType::f32, kRoundings});
      const std::vector<double> values = test::values_of(flat_view(c.arena.values(), place.range)), masters = master.to_vector();
      for (size_t i = 0; i < values.size(); ++i) {
        const auto exact = static_cast<float>(masters[i]);
        const double rounded = type == DType::bf16 ? static_cast<double>(static_cast<float>(bf16(exact))) : exact;
        REQUIRE(values[i] == rounded);
      }
    }
  }
}

DEVICE_TEST_CASE("ranks that own slices do together, bit by bit, what one rank does alone") {
  const DType type = GENERATE(DType::f32, DType::bf16);
  const bool muon = GENERATE(false, true);
  const int ranks = GENERATE(2, 3, 9);  // of nine some own nothing
  const bool fixed_cells = GENERATE(false, true);
  CAPTURE(name_of(type), muon, ranks, fixed_cells);
  const auto make = [&](Arena& arena, std::optional<std::vector<Range>> owned) {
    return muon ? make_muon(arena, {}, kOptions, outer_scale, std::move(owned)) : make_adamw(arena, kOptions, outer_scale, std::move(owned));
  };
  OptimCase whole(type);
  const auto alone = make(whole.arena, std::nullopt);
  struct Rank {
    EveryKind model;
    std::unique_ptr<Arena> arena;
    std::unique_ptr<Optimizer> optimizer;
  };
  std::vector<Rank> group(static_cast<size_t>(ranks));
  size_t pieces = 0;
  for (int r = 0; r < ranks; ++r) {
    Rank& rank = group[static_cast<size_t>(r)];
    const Layout layout(rank.model, {.dp = ranks, .dp_rank = r}, {.whole_matrices = muon, .fixed_cells = fixed_cells, .bucket_elements = 300});
    rank.arena = std::make_unique<Arena>(rank.model, layout, test::device(), type);
    rank.arena->init(11);
    rank.optimizer = make(*rank.arena, layout.owned(r));
    pieces = std::max(pieces, rank.optimizer->owned().size());
  }
  CHECK(pieces > 1);
  for (int step = 0; step < 3; ++step) {
    const StepState s = step_state(step, static_cast<uint64_t>(step));
    whole.draw_gradients(static_cast<uint32_t>(step));
    take_step(*alone, s);
    for (Rank& rank : group) {
      for (size_t i = 0; i < whole.arena.parameters().size(); ++i) {
        const View to = rank.arena->parameters()[i].tensor().grad().view(), from = whole.arena.parameters()[i].tensor().grad().view();
        REQUIRE(rank.arena->parameters()[i].name() == whole.arena.parameters()[i].name());
        copy_bytes(to.data, test::device(), from.data, test::device(), static_cast<size_t>(from.bytes()));
      }
      take_step(*rank.optimizer, s);
    }
  }
  // Every element of every entry of the one rank comes once, in some rank's piece.
  std::map<std::string, std::vector<double>> got;
  for (const Rank& rank : group) {
    StateDict state;
    rank.optimizer->add_state(state);
    for (const StateDict::Entry& e : state.tensors) {
      const Box all = whole_box(e.global);
      std::vector<double>& to = got.try_emplace(e.name, std::vector<double>(static_cast<size_t>(volume(all)), NAN)).first->second;
      const std::vector<double> from = test::values_of(e.data);
      for_each_run(e.box, e.box, all, [&](int64_t here, int64_t there, int64_t n) {
        for (int64_t i = 0; i < n; ++i) {
          REQUIRE(std::isnan(to[static_cast<size_t>(there + i)]));
          to[static_cast<size_t>(there + i)] = from[static_cast<size_t>(here + i)];
        }
      });
    }
  }
  const auto want = test::entries(*alone);
  CHECK(got.size() == want.size());
  for (const auto& [name, view] : want) {
    CAPTURE(name);
    CHECK((got[name] == test::values_of(view)));
  }
  for (const Rank& rank : group) {  // and the values of what it owns are the masters, rounded
    for (const PackedRange& range : rank.optimizer->owned()) {
      for (const Layout::Piece& piece : rank.arena->layout().pieces(range.arena)) {
        const View value = flat_view(rank.arena->values(), piece.range);
        const Layout::Place& place = rank.arena->layout().places()[piece.place];
        for (const Layout::Place& same : whole.arena.layout().places()) {
          if (same.part.name != place.part.name) continue;
          const int64_t begin = same.range.begin + piece.range.begin - place.range.begin;
          CHECK((test::values_of(value) == test::values_of(flat_view(whole.arena.values(), {begin, begin + piece.range.size()}))));
        }
      }
    }
  }
}

DEVICE_TEST_CASE("padding between parameters stays zero in values, masters and moments") {
  OptimCase c(DType::bf16);
  const auto adamw = make_adamw(c.arena, kOptions);
  for (int step = 0; step < 3; ++step) {
    c.draw_gradients(static_cast<uint32_t>(step));
    const StepState s = step_state(step, static_cast<uint64_t>(step));
    take_step(*adamw, s);
  }
  const std::vector<double> values = c.arena.values().to_vector(), masters = adamw->masters().to_vector();
  std::vector<char> used(values.size());
  for (const Parameter& p : c.arena.parameters()) {
    for (int64_t i = c.arena.range(p).begin; i < c.arena.range(p).end; ++i) used[static_cast<size_t>(i)] = 1;
  }
  REQUIRE(std::count(used.begin(), used.end(), 0) > 500);
  for (size_t i = 0; i < used.size(); ++i) {
    if (!used[i]) REQUIRE((values[i] == 0 && masters[i] == 0));
  }
}

DEVICE_TEST_CASE("a withheld update leaves values, masters and moments as they are, bit by bit") {
  const DType type = GENERATE(DType::f32, DType::bf16, DType::f64);
  const bool muon = GENERATE(false, true);
  CAPTURE(name_of(type), muon);
  OptimCase c(type);
  const auto optimizer = muon ? make_muon(c.arena, {}, kOptions) : make_adamw(c.arena, kOptions);
  c.draw_gradients(1);
  StepState s = step_state(0, 0);
  take_step(*optimizer, s);
  const auto before = test::all_bytes(c, *optimizer);
  c.draw_gradients(2);
  s = step_state(4, 1);
  REQUIRE(s.apply == 0);
  take_step(*optimizer, s);
  CHECK(test::all_bytes(c, *optimizer) == before);
  s.apply = 1;
  take_step(*optimizer, s);
  CHECK(test::all_bytes(c, *optimizer) != before);
}

DEVICE_TEST_CASE("an optimizer marks the values as written, so that a graph over the old ones is refused") {
  OptimCase c(DType::f32);
  const auto optimizer = make_adamw(c.arena, kOptions);
  c.draw_gradients(1);
  const StepState s = step_state(0, 0);
  const uint64_t version = c.arena.values().storage()->version();
  take_step(*optimizer, s);
  CHECK(c.arena.values().storage()->version() > version);
}

DEVICE_TEST_CASE("too many learning rates are an error, not a wrong group") {
  struct Many final : Module {
    Many() {
      for (int i = 0; i < 17; ++i) {
        ParameterSpec s;
        s.parts = {{.global = {2, 2}}};
        s.lr_scale = static_cast<float>(i + 1);
        add(concat("w", i), s);
      }
    }
  };
  const Many model;
  Arena arena(model, test::device(), DType::f32);
  CHECK_THROWS_AS(make_adamw(arena, kOptions), Error);
}

DEVICE_TEST_CASE("state: every parameter under unique names, whole boxes, the optimizer's own memory") {
  const bool muon = GENERATE(false, true);
  OptimCase c(DType::bf16);
  const auto optimizer = muon ? make_muon(c.arena, {}, kOptions) : make_adamw(c.arena, kOptions);
  StateDict state;
  optimizer->add_state(state);
  std::set<std::string> names, want;
  for (const StateDict::Entry& e : state.tensors) {
    CAPTURE(e.name);
    CHECK(names.insert(e.name).second);
    CHECK(e.data.dtype == DType::f32);  // masters, not values
    CHECK(e.data.contiguous());
    REQUIRE(e.box.size() == e.global.size());
    for (size_t axis = 0; axis < e.box.size(); ++axis) CHECK(e.box[axis] == Range{0, e.global[axis]});
    CHECK(e.data.numel() == volume(e.box));
  }
  for (const Parameter& p : c.arena.parameters()) {
    for (const Part& part : p.parts()) {
      want.insert("model." + part.name);
      if (muon && p.spec().kind == ParamKind::matrix) {
        want.insert("optim.momentum." + part.name);
      } else {
        want.insert("optim.m." + part.name);
        want.insert("optim.v." + part.name);
      }
    }
  }
  CHECK(want.count("model.q.weight") == 1);
  CHECK(names == want);

  // Each entry has memory of its own: what is written through one is seen through no other.
  for (size_t k = 0; k < state.tensors.size(); ++k) {
    const View& v = state.tensors[k].data;
    test::write(v, std::vector<double>(static_cast<size_t>(v.numel()), static_cast<double>(k + 1)));
  }
  for (size_t k = 0; k < state.tensors.size(); ++k) {
    CHECK(test::values_of(state.tensors[k].data) ==
          std::vector<double>(static_cast<size_t>(state.tensors[k].data.numel()), static_cast<double>(k + 1)));
  }
}

DEVICE_TEST_CASE("masters written from outside reach the values rounded, after masters_changed") {
  const DType type = GENERATE(DType::f32, DType::bf16);
  OptimCase c(type);
  const auto optimizer = make_adamw(c.arena, kOptions);
  const auto state = test::entries(*optimizer);
  const float samples[] = {1 + 0x1p-9f, 1 + 0x1p-8f, 1 + 0x1.8p-7f, -3.14159f};  // bf16: down, tie to even, tie up to even, plain
  for (const auto& [name, view] : state) {
    if (name.rfind("model.", 0) != 0) continue;
    std::vector<double> masters;
    for (int64_t i = 0; i < view.numel(); ++i) masters.push_back(samples[i % 4]);
    test::write(view, masters);
  }
  optimizer->masters_changed();
  const double rounded[] = {1, 1, 1 + 0x1p-6, -3.140625};
  for (const Parameter& p : c.arena.parameters()) {
    const std::vector<double> values = p.tensor().to_vector();
    for (size_t i = 0; i < values.size(); ++i) REQUIRE(values[i] == (type == DType::bf16 ? rounded[i % 4] : static_cast<double>(samples[i % 4])));
  }
}

}  // namespace
}  // namespace heddle
