// Optimizer updates against float64, and the decisions about a step.
#include "kernels/api/optimizer.h"

#include <limits>
#include <span>

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/optimizer.h"
#include "tests/support/spikes.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::kFloating;
using test::run;

// What an AdamW call touches; values of bf16 have masters of their own, others are their own masters.
struct Adam {
  Buffer value, master, grad, m, v, group;
  StepState step;
  AdamWArgs args;

  Adam(DType value_type, int64_t n, int64_t offset = 0) {
    const DType type = accumulator_of(value_type);
    const std::vector<int64_t> shape{n};
    value = Buffer(value_type, shape, {.offset = offset});
    master = Buffer(type, shape, {.offset = offset});
    grad = Buffer(type, shape, {.offset = offset});
    m = Buffer(type, shape, {.offset = offset});
    v = Buffer(type, shape, {.offset = offset});
    group = Buffer(DType::u8, {n / kArenaBlock});
    value.normal(1);
    master.normal(1);
    grad.normal(2, 0, 3);
    m.normal(3);
    std::mt19937 engine(4);
    v.fill([&](int64_t) { return std::abs(std::normal_distribution<double>()(engine)); });
    group.fill([](int64_t block) { return static_cast<double>(block % 3); });
    step.lr = 0.5f;
    step.clip_scale = 0.25f;
    step.adam_t = 4;
    args.groups[0] = {0.01f, 0.1f};
    args.groups[1] = {0.02f, 0.0f};
    args.groups[2] = {0.0f, 0.5f};
  }
  const AdamWArgs& bind(bool own_master) {
    args.value = own_master ? master.view() : value.view();
    args.master = master.view();
    args.grad = grad.view();
    args.m = m.view();
    args.v = v.view();
    args.group_of_block = group.view();
    args.step = &step;
    return args;
  }
};

TEST_CASE("adamw: groups, clipping, bias correction, masters and rounded values", "[optimizer]") {
  for (DType type : kFloating) {
    for (int64_t n : {int64_t{0}, kArenaBlock, 5 * kArenaBlock, 300 * kArenaBlock}) {
      for (bool own_master : {false, true}) {
        if (own_master && type == DType::bf16) continue;
        Adam a(type, n);
        a.args.eps = own_master ? 1e-8f : 0.25f;
        for (int repeat = 0; repeat < 3; ++repeat) {
          const AdamWArgs& args = a.bind(own_master);
          const oracle::AdamWResult want = oracle::adamw(args);
          run(adamw, args);
          const DType sums = accumulator_of(type);
          CHECK_CLOSE(args.m, want.m.want, want.m.magnitude, Bound{sums, 4});
          CHECK_CLOSE(args.v, want.v.want, want.v.magnitude, Bound{sums, 5});
          CHECK_CLOSE(args.master, want.master.want, want.master.magnitude, Bound{sums, 16});
          for (int64_t i = 0; i < n; ++i) REQUIRE(test::element(args.value, i) == oracle::rounded(type, test::element(args.master, i)));
          ++a.step.adam_t;
        }
        CHECK((a.value.guards_intact() && a.master.guards_intact() && a.m.guards_intact() && a.v.guards_intact()));
      }
    }
  }
}

// Elements of b for each block of a, whose block i is block_of[i] of b.
void copy_blocks(Buffer& a, const Buffer& b, std::span<const int32_t> block_of) {
  for (size_t i = 0; i < block_of.size(); ++i) {
    for (int64_t e = 0; e < kArenaBlock; ++e)
      a.put(static_cast<int64_t>(i) * kArenaBlock + e, test::element(b.view(), block_of[i] * kArenaBlock + e));
  }
}

TEST_CASE("adamw: packed moments and masters find their blocks, which are updated as if they lay side by side; the others are left alone",
          "[optimizer]") {
  constexpr int64_t kBlocks = 90;
  std::vector<int32_t> table;
  for (int32_t block = 1; block < kBlocks; block += 1 + block % 3) table.push_back(block);
  const int64_t packed = static_cast<int64_t>(table.size());
  for (DType type : kFloating) {
    for (bool own_master : {false, true}) {
      if (own_master && type == DType::bf16) continue;
      Adam dense(type, packed * kArenaBlock), sparse(type, packed * kArenaBlock);
      const Adam whole(type, kBlocks * kArenaBlock);
      for (auto [to, from] : {std::pair{&dense.value, &whole.value}, {&dense.grad, &whole.grad}}) copy_blocks(*to, *from, table);
      if (own_master) copy_blocks(dense.master, whole.master, table);
      run(adamw, dense.bind(own_master));
      sparse.value = whole.value, sparse.grad = whole.grad;
      if (own_master) sparse.master = whole.master;
      Buffer arena_block(DType::i32, {packed});
      for (int64_t i = 0; i < packed; ++i) arena_block.put(i, table[static_cast<size_t>(i)]);
      sparse.args.arena_block = arena_block.view();
      run(adamw, sparse.bind(own_master));
      CHECK(sparse.m == dense.m);
      CHECK(sparse.v == dense.v);
      if (!own_master) CHECK(sparse.master == dense.master);
      Buffer got(type, {packed * kArenaBlock});
      copy_blocks(got, own_master ? sparse.master : sparse.value, table);
      CHECK(test::values(got.view()) == test::values((own_master ? dense.master : dense.value).view()));
      const Buffer& after = own_master ? sparse.master : sparse.value;
      const Buffer& before = own_master ? whole.master : whole.value;
      int64_t changed = 0;
      for (int64_t i = 0; i < kBlocks * kArenaBlock; ++i) {
        if (std::find(table.begin(), table.end(), i / kArenaBlock) != table.end()) continue;
        changed += test::element(after.view(), i) != test::element(before.view(), i);
      }
      CHECK(changed == 0);
      CHECK(after.guards_intact());
    }
  }
}

TEST_CASE("optimizers: arrays that are not aligned give the same", "[optimizer]") {
  for (DType type : kFloating) {
    constexpr int64_t n = 37 * kArenaBlock;
    std::vector<std::vector<double>> results[2];
    for (int64_t offset : {0, 1}) {
      Adam a(type, n, offset);
      Buffer out(type, {n}, {.offset = offset});
      run(adamw, a.bind(false));
      run(muon_momentum, MuonMomentumArgs{a.grad.view(), a.m.view(), out.view(), 0.95f, true, &a.step});
      run(muon_apply, MuonApplyArgs{a.value.view(), a.master.view(), out.view(), {0.1f, 0.1f}, 2, &a.step});
      run(normalize, NormalizeArgs{.x = a.grad.view(), .out = out.view()});
      for (const Buffer* buffer : {&a.value, &a.master, &a.m, &a.v, &out}) {
        results[offset].push_back(test::values(buffer->view()));
        CHECK(buffer->guards_intact());
      }
    }
    CHECK(results[0] == results[1]);
  }
}

TEST_CASE("adamw: the first step moves each element by lr against its sign", "[optimizer]") {
  Adam a(DType::f32, kArenaBlock);
  a.m.fill([](int64_t) { return 0; });
  a.v.fill([](int64_t) { return 0; });
  a.master.fill([](int64_t) { return 1; });
  a.step = {};
  a.step.lr = 1;
  a.args.groups[0] = {0.125f, 0};
  run(adamw, a.bind(true));
  for (int64_t i = 0; i < kArenaBlock; ++i) {
    CHECK(std::abs(test::element(a.master.view(), i) - (test::element(a.grad.view(), i) > 0 ? 0.875 : 1.125)) < 1e-6);
  }
}

TEST_CASE("optimizers: apply == 0 changes nothing, whatever the gradient holds", "[optimizer]") {
  Adam a(DType::bf16, 2 * kArenaBlock);
  a.grad.put(5, std::numeric_limits<double>::quiet_NaN());
  a.step.apply = 0;
  const Adam before = a;
  run(adamw, a.bind(false));
  CHECK((a.value == before.value && a.master == before.master && a.m == before.m && a.v == before.v));

  Buffer out(DType::bf16, {2 * kArenaBlock});
  run(muon_momentum, MuonMomentumArgs{a.grad.view(), a.m.view(), out.view(), 0.95f, true, &a.step});
  CHECK(a.m == before.m);
  CHECK(test::values(out.view()) == std::vector<double>(2 * kArenaBlock, 0.0));
  CHECK(out.guards_intact());
  run(muon_apply, MuonApplyArgs{a.value.view(), a.master.view(), a.grad.view(), {1, 1}, 1, &a.step});
  CHECK((a.value == before.value && a.master == before.master));
}

TEST_CASE("finish_norm: clip, skip and non-finite decisions", "[optimizer]") {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  struct Row {
    double squared;
    float clip_norm, max_grad_norm, grad_norm, clip_scale;
    int finite, apply;
  };
  const Row rows[] = {
      {16, 0, 0, 4, 1, 1, 1},         // no limits
      {16, 1, 0, 4, 0.25f, 1, 1},     // clipped
      {16, 8, 0, 4, 1, 1, 1},         // below the limit
      {16, 4, 4, 4, 1, 1, 1},         // at both limits: not above
      {16, 1, 3.5f, 4, 0.25f, 1, 0},  // spike: the update is withheld
      {16, -1, -1, 4, 1, 1, 1},       // negative limits are none
      {0, 1, 1, 0, 1, 1, 1},          // no gradient at all
      {inf, 1, 0, inf, 1, 0, 0},
      {nan, 1, 0, nan, 1, 0, 0},
      {1e80, 1, 0, inf, 1, 0, 0},                  // overflows the f32 norm
      {0x1p126, 0, 0, 0x1p63f, 1, 1, 1},           // a large norm whose square is finite
      {0x1p126, 0x1p62f, 0, 0x1p63f, 0.5f, 1, 1},  // clipped
  };
  for (const Row& row : rows) {
    for (DType type : {DType::f64, DType::f32}) {
      Buffer squared(type, {1});
      squared.put(0, row.squared);
      StepState step;
      step.clip_norm = row.clip_norm;
      step.spike_z = test::kHairTrigger;
      step.spikes = test::held_at(row.max_grad_norm);
      step.finite = step.apply = 7;
      step.clip_scale = nan;
      run(finish_norm, FinishNormArgs{squared.view(), &step});
      INFO("squared " << row.squared << " clip " << row.clip_norm << " max " << row.max_grad_norm);
      CHECK(((std::isnan(step.grad_norm) && std::isnan(row.grad_norm)) || step.grad_norm == row.grad_norm));
      CHECK(step.clip_scale == row.clip_scale);
      CHECK(step.finite == row.finite);
      CHECK(step.apply == row.apply);
    }
  }
}

TEST_CASE("finish_norm: a loss above its limit or not finite withholds the update", "[optimizer]") {
  constexpr float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  struct Row {
    double loss;
    float max_loss;
    int finite, apply;
  };
  const Row rows[] = {{3, 0, 1, 1}, {3, 4, 1, 1}, {3, 3, 1, 1}, {3, 2.5f, 1, 0}, {3, -1, 1, 1}, {nan, 0, 0, 0}, {inf, 4, 0, 0}, {-inf, 4, 0, 0}};
  for (const Row& row : rows) {
    for (DType type : {DType::f64, DType::f32}) {
      Buffer squared(type, {1}), loss(type, {});
      squared.put(0, 4), loss.put(0, row.loss);
      StepState step;
      step.clip_norm = 1, step.spike_z = test::kHairTrigger, step.spikes = test::held_at(100, row.max_loss);
      run(finish_norm, FinishNormArgs{.squared_norm = squared.view(), .step = &step, .loss = loss.view()});
      INFO("loss " << row.loss << " max " << row.max_loss);
      CHECK(step.grad_norm == 2);
      CHECK(step.clip_scale == 0.5f);
      CHECK(step.finite == row.finite);
      CHECK(step.apply == row.apply);
      step.spikes = test::held_at(100, 1e-3);  // without a loss its limit says nothing
      run(finish_norm, FinishNormArgs{squared.view(), &step});
      CHECK(step.apply == 1);
    }
  }
}

TEST_CASE("finish_norm: shares of the loss are added in rank order; a fault of any rank withholds the update and moves nothing", "[optimizer]") {
  for (DType type : {DType::f64, DType::f32}) {
    Buffer squared(type, {1}), losses(type, {4}), faults(DType::i32, {4});
    squared.put(0, 4);
    const double shares[] = {1, 0x1p-24, 0x1p-24, 0x1p-23};  // in f32 the small ones are lost one by one, and not if they are added first
    for (int64_t i = 0; i < 4; ++i) losses.put(i, shares[i]), faults.put(i, 0);
    StepState step;
    FinishNormArgs args{.squared_norm = squared.view(), .step = &step, .loss = losses.view(), .faults = faults.view()};
    run(finish_norm, args);
    CHECK(step.loss == (type == DType::f32 ? 1 + 0x1p-23 : 1 + 0x1p-22));
    CHECK(step.apply == 1);
    CHECK(step.spikes.observations == 1);
    const SpikeStatistics before = step.spikes;
    for (int64_t rank = 0; rank < 4; ++rank) {
      faults.put(rank, 2);
      for (const double share : {1.0, std::numeric_limits<double>::quiet_NaN()}) {  // whatever else such a rank has come to
        losses.put(rank, share);
        run(finish_norm, args);
        CHECK(step.fault == 1);
        CHECK(step.apply == 0);
        CHECK(step.spikes.observations == before.observations);
        CHECK(step.spikes.nonfinite_run == 0);
        CHECK(step.spikes.loss_mean == before.loss_mean);
      }
      faults.put(rank, 0), losses.put(rank, 1);
    }
    run(finish_norm, args);
    CHECK(step.fault == 0);
    CHECK(step.apply == 1);
  }
}

TEST_CASE("finish_norm: a norm whose square overflows is withheld unless clipping brings it down", "[optimizer]") {
  const auto decide = [](double norm, float clip_norm) {
    Buffer squared(DType::f64, {1});
    squared.put(0, norm * norm);
    StepState step;
    step.clip_norm = clip_norm;
    run(finish_norm, FinishNormArgs{squared.view(), &step});
    CHECK(step.finite == step.apply);
    CHECK(step.grad_norm == static_cast<float>(norm));
    return step;
  };
  CHECK(decide(kMostGradNorm, 0).apply == 1);
  CHECK(decide(0x1p64, 0).apply == 0);
  CHECK(decide(1e30, 0).apply == 0);
  CHECK(decide(1e30, 1).apply == 1);
  CHECK(decide(1e30, 1).clip_scale == 1 / 1e30f);
  // What the rule is for: one AdamW step with the largest gradient that passes leaves finite moments, also on an element that holds all of it.
  Adam a(DType::f32, kArenaBlock);
  a.grad.put(0, kMostGradNorm);
  a.step.clip_scale = 1;
  run(adamw, a.bind(false));
  CHECK(std::isfinite(test::element(a.v.view(), 0)));
  CHECK(std::isfinite(test::element(a.master.view(), 0)));
}

TEST_CASE("advance_step: a skipped step does not advance bias correction", "[optimizer]") {
  StepState step;
  run(advance_step, AdvanceStepArgs{&step});
  CHECK((step.step == 1 && step.adam_t == 1 && step.skipped == 0));
  step.apply = 0;
  run(advance_step, AdvanceStepArgs{&step});
  CHECK((step.step == 2 && step.adam_t == 1 && step.skipped == 1));
}

TEST_CASE("optimizers: bits do not depend on the number of threads", "[optimizer]") {
  CHECK(test::same_on_any_thread_count([] {
    Adam a(DType::bf16, 700 * kArenaBlock);
    run(adamw, a.bind(false));
    Buffer out(DType::bf16, {700 * kArenaBlock});
    run(muon_momentum, MuonMomentumArgs{a.grad.view(), a.m.view(), out.view(), 0.95f, true, &a.step});
    run(muon_apply, MuonApplyArgs{a.value.view(), a.master.view(), out.view(), {0.1f, 0.1f}, 1, &a.step});
    Buffer unit(DType::bf16, {700 * kArenaBlock});
    run(normalize, NormalizeArgs{.x = a.grad.view(), .out = unit.view()});
    return std::vector{a.value, a.master, a.m, a.v, out, unit};
  }));
}

TEST_CASE("optimizers: arguments that contradict the contract are refused by name", "[optimizer]") {
  Adam a(DType::f32, 2 * kArenaBlock);
  AdamWArgs args = a.bind(false);
  args.step = nullptr;
  CHECK(test::contains(test::error_of(adamw, args), "step is absent"));
  args = a.bind(false);
  for (View* v : {&args.value, &args.master, &args.grad, &args.m, &args.v}) v->shape[0] = 130;
  CHECK(test::contains(test::error_of(adamw, args), "n = 130 is not a multiple of 128"));
  args = a.bind(false);
  args.m = Buffer(DType::f64, {2 * kArenaBlock}).view();
  CHECK(test::contains(test::error_of(adamw, args), "dtypes differ: grad f32 (256), m f64 (256)"));
}

TEST_CASE("adamw: tables that name no group or block are refused", "[optimizer][cpu]") {
  Adam a(DType::f32, 2 * kArenaBlock);
  a.group.put(1, 16);
  CHECK(test::contains(test::error_of(adamw, a.bind(false)), "group_of_block[1] = 16"));
  a.group.put(1, 0);
  Buffer arena_block(DType::i32, {2});
  arena_block.put(0, 0), arena_block.put(1, 2);
  a.args.arena_block = arena_block.view();
  CHECK(test::contains(test::error_of(adamw, a.bind(false)), "arena_block[1] = 2 of 2 blocks"));
}

}  // namespace
}  // namespace heddle::kernels
