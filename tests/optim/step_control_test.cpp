// Global norm, clipping, and gradients that must not reach an optimizer.
#include <limits>

#include "tests/optim/support.h"
#include "tests/support/spikes.h"

namespace heddle {
namespace {

using test::OptimCase;

double norm_of(const Arena& arena) {
  double squares = 0;
  for (const Parameter& p : arena.parameters()) {
    for (double g : p.tensor().grad().to_vector()) squares += g * g;
  }
  return std::sqrt(squares);
}

StepState limits(float clip_norm, float max_grad_norm) {
  StepState s;
  s.lr = 1;
  s.clip_norm = clip_norm;
  s.spike_z = test::kHairTrigger;
  s.spikes = test::held_at(max_grad_norm);
  return s;
}

// A gradient element inside the last parameter of the arena, beyond any block that a kernel might look at first.
void poke(const OptimCase& c, double value) {
  const Tensor grad = c.arena.parameters().back().tensor().grad();
  std::vector<double> values = grad.to_vector();
  values.back() = value;
  test::write(grad, values);
}

DEVICE_TEST_CASE("the norm is that of all parameters; clipping scales to the limit and never up") {
  OptimCase c(DType::bf16);
  c.draw_gradients(1);
  const double norm = norm_of(c.arena);
  StepControl control(test::device());
  for (float limit : {0.0f, 1.0f, static_cast<float>(norm * 2)}) {
    CAPTURE(limit);
    control.set(limits(limit, 0));
    control.finish_norm(c.arena);
    const StepState s = control.get();
    CHECK(std::abs(s.grad_norm - norm) <= 0x1p-23 * norm);
    CHECK(s.finite == 1);
    CHECK(s.apply == 1);
    const double want = limit > 0 && limit < norm ? limit / norm : 1;
    CHECK(std::abs(s.clip_scale - want) <= 0x1p-22 * want);
  }
}

DEVICE_TEST_CASE("an update is withheld above the spike limit and only there") {
  OptimCase c(DType::f32);
  c.draw_gradients(1);
  const auto norm = static_cast<float>(norm_of(c.arena));
  StepControl control(test::device());
  control.set(limits(1, norm * 1.001f));
  control.finish_norm(c.arena);
  CHECK(control.get().apply == 1);
  control.set(limits(1, norm * 0.999f));
  control.finish_norm(c.arena);
  CHECK(control.get().apply == 0);
  CHECK(control.get().finite == 1);
}

DEVICE_TEST_CASE("a bad gradient changes nothing but the counters: no value, master or moment") {
  const DType type = GENERATE(DType::f32, DType::bf16);
  const bool muon = GENERATE(false, true);
  OptimCase c(type);
  const AdamWOptions adamw{.lr = 0.01f};
  const auto optimizer = muon ? make_muon(c.arena, {}, adamw) : make_adamw(c.arena, adamw);
  StepControl control(test::device());
  const auto step = [&](float max_grad_norm) {
    StepState s = control.get();
    s.lr = 1, s.clip_norm = 1, s.spike_z = test::kHairTrigger, s.spikes = test::held_at(max_grad_norm);
    control.set(s);
    control.finish_norm(c.arena);
    optimizer->step(control.device_state());
    control.advance();
  };
  c.draw_gradients(1);
  step(0);
  uint64_t steps = 1, skipped = 0;
  for (double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity(), 1e30}) {
    CAPTURE(name_of(type), muon, bad);
    const auto before = test::all_bytes(c, *optimizer);
    c.draw_gradients(2);
    poke(c, bad);
    step(bad == 1e30 ? 100.0f : 0.0f);  // finite: what withholds it is the spike guard's limit
    const StepState s = control.get();
    CHECK(test::all_bytes(c, *optimizer) == before);
    CHECK(s.step == ++steps);
    CHECK(s.skipped == ++skipped);
    CHECK(s.adam_t == 1);
    CHECK(s.finite == (std::isfinite(bad) ? 1 : 0));
  }
  // The run goes on: nothing bad was left behind.
  const auto before = test::all_bytes(c, *optimizer);
  c.draw_gradients(3);
  step(0);
  CHECK(control.get().adam_t == 2);
  CHECK(test::all_bytes(c, *optimizer) != before);
  for (const auto& [name, view] : test::entries(*optimizer)) {
    CAPTURE(name);
    for (double v : test::values_of(view)) REQUIRE(std::isfinite(v));
  }
}

DEVICE_TEST_CASE("a huge finite gradient is clipped and leaves everything finite") {
  const bool muon = GENERATE(false, true);
  OptimCase c(DType::f32);
  const auto optimizer = muon ? make_muon(c.arena, {}, {}) : make_adamw(c.arena, {});
  c.draw_gradients(1);
  poke(c, 1e30);
  StepControl control(test::device());
  control.set(limits(1, 0));
  control.finish_norm(c.arena);
  CHECK(control.get().apply == 1);
  optimizer->step(control.device_state());
  for (const auto& [name, view] : test::entries(*optimizer)) {
    CAPTURE(name);
    for (double v : test::values_of(view)) REQUIRE(std::isfinite(v));
  }
}

DEVICE_TEST_CASE("counters survive set and get, and a step advances them") {
  StepControl control(test::device());
  StepState s = limits(0, 0);
  s.step = 41, s.adam_t = 40, s.skipped = 1;
  control.set(s);
  control.advance();
  CHECK(control.get().step == 42);
  CHECK(control.get().adam_t == 41);
  CHECK(control.get().skipped == 1);
}

}  // namespace
}  // namespace heddle
