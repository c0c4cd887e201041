// A step on a device that works on its own: nothing in it waits for the host, and on a simulated GPU whose ops the host does it is the CPU's step bit
// by bit. (By CUDA kernels: cuda_step_test.cpp.)
#include <cmath>

#include "core/device.h"
#include "kernels/api/step_state.h"
#include "tests/data/support.h"
#include "tests/models/support.h"
#include "tests/support/catch.h"
#include "tests/support/devices.h"
#include "tests/support/host_kernels.h"
#include "tests/train/random_batch.h"
#include "train/objectives.h"
#include "train/trainer.h"

namespace heddle {
namespace {

constexpr int64_t kSeq = 16, kBatch = 2, kVocab = 61;

struct Session {
  Transformer model;
  Arena arena;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Communicator> comm = local_communicator();
  Trainer trainer;

  Session(Device device, DType dtype, bool muon)
      : model((kernels::register_cpu_kernels(), shape())),
        arena(model, device, dtype),
        optimizer((arena.init(7), muon ? make_muon(arena, {}, {}) : make_adamw(arena, {.lr = 0.01f}))),
        trainer(next_token_objective(model), arena, *optimizer, *comm, {.batch = kBatch, .seq = kSeq}) {}

  static TransformerConfig shape() {
    TransformerConfig c{.vocab = kVocab, .layers = 2, .dim = 32, .heads = 2, .seq = kSeq};
    c.qk_norm = true;
    return c;
  }
  // Random tokens, a document border in the middle; three micro-steps.
  bool start(uint64_t step, int32_t first_target = 0) {
    const FillBatch fill = [&](int64_t m, const BatchView& into) {
      test::fill_random(step, m, kVocab, into);
      if (first_target != 0) into.targets[0] = first_target;
    };
    return trainer.start({.micro_steps = 3, .valid_targets = 3 * kBatch * (kSeq - 1), .lr = 1, .clip_norm = 1, .z_loss = 1e-4f}, fill);
  }
};

TEST_CASE("a device trains as the CPU does, and a step waits for nothing", "[device]") {
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const bool muon = GENERATE(false, true);
  CAPTURE(name_of(dtype), muon);
  Session here(Device{}, dtype, muon);
  const kernels::ForcedKernels forced(test::host_kernels());
  const uint64_t steps = muon || dtype == DType::bf16 ? 5 : 20;
  for (const Device device : test::devices()) {
    if (device.type == DeviceType::cpu || !runtime(device.type).simulated()) continue;
    Session there(device, dtype, muon);
    for (uint64_t step = 0; step < steps; ++step) {
      CAPTURE(step);
      REQUIRE(here.start(step));
      const uint64_t before = runtime(device.type).host_synchronisations();
      REQUIRE(there.start(step));
      CHECK(runtime(device.type).host_synchronisations() == before);
      const StepState want = here.trainer.result(), got = there.trainer.result();
      CHECK(got.apply);
      CHECK(got.loss == want.loss);
      CHECK(got.grad_norm == want.grad_norm);
    }
    CHECK((there.arena.values().to_vector() == here.arena.values().to_vector()));
    CHECK((there.optimizer->masters().to_vector() == here.optimizer->masters().to_vector()));
    CHECK(there.trainer.kept().adam_t == steps);
  }
}

TEST_CASE("results are taken in the order of the steps, two of which may be under way", "[device]") {
  for (const Device device : test::devices()) {
    CAPTURE(name_of(device));
    Session late(device, DType::f32, false), prompt(device, DType::f32, false);
    std::vector<double> got, want;
    REQUIRE(late.start(0));
    for (uint64_t step = 1; step < 6; ++step) {
      REQUIRE(late.start(step));
      got.push_back(late.trainer.result().loss);
    }
    REQUIRE(late.start(6));
    CHECK_THROWS_WITH(late.start(7), Catch::Contains("the results of 2 steps are on their way"));
    for (uint64_t step = 5; step < 7; ++step) got.push_back(late.trainer.result().loss);
    CHECK_THROWS_WITH(late.trainer.result(), Catch::Contains("no result is on its way"));
    for (uint64_t step = 0; step < 7; ++step) {
      REQUIRE(prompt.start(step));
      want.push_back(prompt.trainer.result().loss);
    }
    CHECK(got == want);
  }
}

TEST_CASE("a step that met data it cannot use changes nothing, says so with its result, and is forgotten", "[device]") {
  for (const Device device : test::devices()) {
    if (device.type == DeviceType::cpu) continue;  // there the op throws
    Session session(device, DType::f32, false);
    REQUIRE(session.start(0));
    session.trainer.result();
    const std::vector<double> before = session.arena.values().to_vector();
    REQUIRE(session.start(1, kVocab));
    REQUIRE(session.start(2));  // the host does not know yet
    CHECK_THROWS_WITH(session.trainer.result(), Catch::Contains("targets[0] = 61, V = 61"));
    CHECK_THROWS_WITH(session.trainer.result(), Catch::Contains("met data"));  // queued while the word was set: withheld as well
    CHECK((session.arena.values().to_vector() == before));
    REQUIRE(session.start(3));
    CHECK(session.trainer.result().apply);
    CHECK((session.arena.values().to_vector() != before));
  }
}

}  // namespace
}  // namespace heddle
