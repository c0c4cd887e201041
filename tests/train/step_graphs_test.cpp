// Steps launched as graphs are the steps launched kernel by kernel, bit for bit, and cost the host the same few calls each.
#include "train/step_graphs.h"

#include "core/device.h"
#include "infer/evaluator.h"
#include "kernels/api/step_state.h"
#if HEDDLE_TEST_SIMULATED_GPU
#include "kernels/sim/cudart/cudart.h"
#include "kernels/sim/vendor/cublaslt.h"
#endif
#include "tests/data/support.h"
#include "tests/models/support.h"
#include "tests/support/catch.h"
#include "tests/support/devices.h"
#include "tests/support/host_kernels.h"
#include "tests/support/spikes.h"
#include "tests/train/random_batch.h"
#include "train/objectives.h"
#include "train/trainer.h"
#include "train/vendor_kernels.h"

namespace heddle {
namespace {

constexpr int64_t kSeq = 16, kBatch = 2, kVocab = 61;

struct Way {
  DType dtype = DType::f32;
  bool muon = false, deterministic = false, recompute = false;
};

struct Session {
  Transformer model;
  Arena arena;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Communicator> comm = local_communicator();
  std::vector<std::string> told;
  Trainer trainer;

  Session(Device device, const Way& way, bool graphs)
      : model((kernels::register_cpu_kernels(), shape(way))),
        arena(model, device, way.dtype),
        optimizer((arena.init(7), way.muon ? make_muon(arena, {}, {}) : make_adamw(arena, {.lr = 0.01f}))),
        trainer(next_token_objective(model), arena, *optimizer, *comm,
                {.batch = kBatch, .seq = kSeq, .deterministic = way.deterministic, .graphs = graphs, .tell = [this](const std::string& line) {
                   told.push_back(line);
                 }}) {}

  static TransformerConfig shape(const Way& way) {
    TransformerConfig c{.vocab = kVocab, .layers = 2, .dim = 32, .heads = 2, .seq = kSeq};
    c.qk_norm = true;
    c.recompute = way.recompute;
    return c;
  }
  // Random tokens, a document border in the middle. stop_before: the micro-step whose data is not there.
  bool start(uint64_t step, int64_t micro_steps, int64_t stop_before = -1, float z_loss = 1e-4f) {
    int64_t filled = 0;
    const FillBatch fill = [&](int64_t m, const BatchView& into) {
      filled = m;
      test::fill_random(step, m, kVocab, into);
    };
    return trainer.start({.micro_steps = micro_steps,
                          .valid_targets = micro_steps * kBatch * (kSeq - 1),
                          .lr = 1.0f / static_cast<float>(1 + step % 3),
                          .clip_norm = 1,
                          .spike_z = spike_z,
                          .z_loss = z_loss},
                         fill, [&] { return filled == stop_before; });
  }
  // A loss of what the weights are now, by ops that are launched one by one.
  double look() const {
    const Device device = arena.values().device();
    std::vector<int32_t> tokens(kBatch * kSeq);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(7 * i % kVocab);
    const Tensor there = Tensor::from(tokens, {kBatch, kSeq}, device);
    double sum = 0;
    for (const double loss : model.token_losses(there, there, {}).to_vector()) sum += loss;
    return sum;
  }
  double spike_z = 0;
};

// What happens at a step: the same to both sessions. What it came to, bit for bit.
std::vector<double> go(Session& session, uint64_t step, int64_t micro_steps) {
  std::vector<double> bits;
  if (step == 7) {  // a checkpoint is loaded: masters from outside, the counters of before
    const StepState kept = session.trainer.kept();
    bits.push_back(static_cast<double>(kept.adam_t));
    const Tensor masters = session.optimizer->masters();
    const std::vector<double> values = masters.to_vector();
    const Tensor from = Tensor::from(values, {masters.numel()}, masters.dtype(), masters.device());
    copy_bytes(masters.impl().data, masters.device(), from.impl().data, from.device(), static_cast<size_t>(from.view().bytes()));
    session.trainer.go_on_from(kept);
    session.trainer.masters_changed();
  }
  if (step == 9 || step == 10) {  // one that stands out: withheld
    StepState kept = session.trainer.kept();
    kept.spikes = test::held_at(0, 0.1);
    session.trainer.go_on_from(kept);
    session.spike_z = test::kHairTrigger;
  }
  if ((step == 1 || step == 12) && micro_steps > 1) {  // its data ends in the middle, of one that is being recorded as well
    CHECK_FALSE(session.start(1000, micro_steps, micro_steps / 2));
  }
  REQUIRE(session.start(step, micro_steps));
  const StepState state = session.trainer.result();
  CHECK(state.apply == (session.spike_z > 0 ? 0 : 1));
  session.spike_z = 0;
  bits.insert(bits.end(), {state.loss, state.grad_norm, static_cast<double>(state.adam_t), static_cast<double>(state.skipped)});
  if (step % 5 == 4) bits.push_back(session.look());
  return bits;
}

void equal_runs(Device device, const Way& way, int64_t micro_steps, uint64_t steps) {
  CAPTURE(name_of(way.dtype), way.muon, way.deterministic, way.recompute, micro_steps);
  Session direct(device, way, false), graphs(device, way, true);
  for (uint64_t step = 0; step < steps; ++step) {
    CAPTURE(step);
    const std::vector<double> want = go(direct, step, micro_steps), got = go(graphs, step, micro_steps);
    CHECK((got == want));
  }
  CHECK((graphs.arena.values().to_vector() == direct.arena.values().to_vector()));
  CHECK((graphs.optimizer->masters().to_vector() == direct.optimizer->masters().to_vector()));
  CHECK(direct.told.empty());
  REQUIRE(graphs.told.size() == 1);
  CHECK_THAT(graphs.told[0], Catch::Contains("was recorded as"));
}

std::optional<Device> gpu() {
  for (const Device device : test::devices()) {
    if (device.type == DeviceType::cuda) return device;
  }
  return {};
}

TEST_CASE("steps launched as graphs have the bits of steps launched kernel by kernel", "[device]") {
  if (!gpu()) return;
  const kernels::ForcedKernels forced(test::host_kernels());
  for (const int64_t micro_steps : {1, 2, 4}) equal_runs(*gpu(), {}, micro_steps, 20);
  equal_runs(*gpu(), {.dtype = DType::bf16, .recompute = true}, 3, 20);
  equal_runs(*gpu(), {.muon = true}, 2, 13);
  for (const int64_t micro_steps : {1, 4, 5}) equal_runs(*gpu(), {.deterministic = true}, micro_steps, 13);
}

#if HEDDLE_TEST_SIMULATED_GPU
TEST_CASE("--gemm vendor: cuBLASLt's products are recorded with the bits that they have kernel by kernel", "[device]") {
  std::vector<std::string> choices = test::host_kernels();
  std::erase_if(choices, [](const std::string& choice) { return choice.starts_with("matmul="); });
  const kernels::ForcedKernels forced(choices);
  sim::cublaslt::reset();
  {
    const VendorKernels vendor(GemmChoice::vendor, *gpu());
    CHECK(vendor.missing() == "");
    equal_runs(*gpu(), {.dtype = DType::bf16}, 2, 6);
    CHECK(sim::cublaslt::calls("cublasLtMatmul") > 0);
  }
  CHECK(kernels::matmul.preferred(DeviceType::cuda) == "");
  sim::cublaslt::reset();
  for (const GemmChoice own : {GemmChoice::automatic, GemmChoice::heddle}) {
    const VendorKernels vendor(own, *gpu());
    CHECK(kernels::matmul.preferred(DeviceType::cuda) == "");
  }
  CHECK(VendorKernels(GemmChoice::vendor, Device{}).missing() == "--gemm vendor: cpu has no matrix products of a vendor's; heddle's own are used");
}
#endif

TEST_CASE("a step of another shape is recorded anew, once, and said", "[device]") {
  if (!gpu()) return;
  const kernels::ForcedKernels forced(test::host_kernels());
  for (const bool deterministic : {false, true}) {
    CAPTURE(deterministic);
    Session direct(*gpu(), {.deterministic = deterministic}, false), graphs(*gpu(), {.deterministic = deterministic}, true);
    for (uint64_t step = 0; step < 16; ++step) {
      CAPTURE(step);
      const int64_t micro_steps = step < 4 ? 2 : step < 12 ? 3 : 2;
      const float z_loss = step < 8 ? 0 : 1e-3f;
      for (Session* session : {&direct, &graphs}) REQUIRE(session->start(step, micro_steps, -1, z_loss));
      CHECK(graphs.trainer.result().loss == direct.trainer.result().loss);
    }
    CHECK((graphs.arena.values().to_vector() == direct.arena.values().to_vector()));
    CHECK(graphs.told.size() == 4);
  }
}

TEST_CASE("with more roles than graphs may be, kernels are launched one by one", "[device]") {
  if (!gpu()) return;
  const kernels::ForcedKernels forced(test::host_kernels());
  Session direct(*gpu(), {.deterministic = true}, false), graphs(*gpu(), {.deterministic = true}, true);
  for (uint64_t step = 0; step < 3; ++step) {
    for (Session* session : {&direct, &graphs}) REQUIRE(session->start(step, 17));
    CHECK(graphs.trainer.result().loss == direct.trainer.result().loss);
  }
  REQUIRE(graphs.told.size() == 1);
  CHECK_THAT(graphs.told[0], Catch::Contains("is launched kernel by kernel"));
}

// An objective that waits for the device, as a model of a program's own may.
TEST_CASE("a step that cannot be recorded runs on, and says why", "[device]") {
  if (!gpu()) return;
  const kernels::ForcedKernels forced(test::host_kernels());
  for (const int64_t micro_steps : {1, 3}) {
    Session direct(*gpu(), {}, false), graphs(*gpu(), {}, true);
    const auto waits = [](Session& session) {
      const Objective inner = next_token_objective(session.model);
      return [inner](const Batch& batch, const ObjectiveOptions& options) {
        const Tensor loss = inner(batch, options);
        const double value = loss.item();  // throws in a capture
        CHECK(value > 0);
        return loss;
      };
    };
    std::vector<std::string> told;
    Trainer one(waits(direct), direct.arena, *direct.optimizer, *direct.comm, {.batch = kBatch, .seq = kSeq});
    Trainer other(waits(graphs), graphs.arena, *graphs.optimizer, *graphs.comm,
                  {.batch = kBatch, .seq = kSeq, .graphs = true, .tell = [&](const std::string& line) { told.push_back(line); }});
    const auto step = [&](Trainer& trainer, int32_t number) {
      const FillBatch fill = [&](int64_t m, const BatchView& into) {
        for (int64_t i = 0; i < kBatch * kSeq; ++i) {
          into.tokens[i] = static_cast<int32_t>((number + m + i) % kVocab);
          into.targets[i] = static_cast<int32_t>((number + 3 * i) % kVocab);
          into.document_start[i] = 0;
        }
      };
      return trainer.step({.micro_steps = micro_steps, .valid_targets = micro_steps * kBatch * kSeq}, fill)->loss;
    };
    for (int32_t number = 0; number < 5; ++number) CHECK(step(other, number) == step(one, number));
    CHECK((graphs.arena.values().to_vector() == direct.arena.values().to_vector()));
    REQUIRE(told.size() == 1);
    CHECK_THAT(told[0], Catch::Contains("a step cannot be recorded") && Catch::Contains("launched one by one"));
  }
}

#if HEDDLE_TEST_SIMULATED_GPU
TEST_CASE("a step by graphs costs the host the same few calls each time, and no wait", "[device]") {
  if (!gpu() || !runtime(DeviceType::cuda).simulated()) return;
  const kernels::ForcedKernels forced(test::host_kernels());
  const auto calls_of_steps = [&](bool graphs, int64_t micro_steps) {
    Session session(*gpu(), {}, graphs);
    std::vector<uint64_t> calls;
    for (uint64_t step = 0; step < 8; ++step) {
      const uint64_t before = sim::runtime_counters().calls, waits = runtime(DeviceType::cuda).host_synchronisations();
      REQUIRE(session.start(step, micro_steps));
      if (step >= 2) calls.push_back(sim::runtime_counters().calls - before);
      if (step != 1) CHECK(runtime(DeviceType::cuda).host_synchronisations() == waits);
      session.trainer.result();
    }
    return calls;
  };
  for (const int64_t micro_steps : {1, 4}) {
    const std::vector<uint64_t> direct = calls_of_steps(false, micro_steps), graphs = calls_of_steps(true, micro_steps);
    CAPTURE(micro_steps, direct, graphs);
    for (const uint64_t calls : graphs) CHECK(calls == graphs[0]);
    CHECK(graphs[0] <= 12 * static_cast<uint64_t>(micro_steps));  // an upload with its event, a launch; the result
    CHECK(direct[0] > 10 * graphs[0]);
  }
}
#endif

}  // namespace
}  // namespace heddle
