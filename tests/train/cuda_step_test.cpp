// Whole steps by the kernels of kernels/cuda alone, on a simulated GPU: beside the CPU's and a float64 run from the same parameters, and with
// themselves in every order of threads and asynchronous operations.
#include <cmath>
#include <map>

#include "core/device.h"
#include "kernels/sim/core/machine.h"
#include "kernels/sim/cudart/cudart.h"
#include "tests/data/support.h"
#include "tests/models/support.h"
#include "tests/support/catch.h"
#include "tests/support/devices.h"
#include "tests/train/random_batch.h"
#include "train/objectives.h"
#include "train/trainer.h"

namespace heddle {
namespace {

constexpr int64_t kSeq = 24, kBatch = 2, kVocab = 61;

TransformerConfig gpt2() {
  return {.vocab = kVocab, .layers = 2, .dim = 64, .heads = 2, .seq = kSeq};
}
TransformerConfig llama() {
  TransformerConfig c{.vocab = kVocab, .layers = 2, .dim = 64, .heads = 4, .kv_heads = 2, .seq = kSeq, .mlp = "swiglu"};
  c.norm = NormType::rms;
  c.position = Position::rope;
  c.bias = false;
  c.qk_norm = true;
  c.tied = false;
  c.window = 9;
  return c;
}

struct Session {
  Transformer model;
  Arena arena;
  std::unique_ptr<Optimizer> optimizer;
  std::unique_ptr<Communicator> comm = local_communicator();
  Trainer trainer;

  Session(Device device, DType dtype, const TransformerConfig& shape, bool muon, bool graphs = false)
      : model((kernels::register_cpu_kernels(), shape)),
        arena(model, device, dtype),
        optimizer((arena.init(7), muon ? make_muon(arena, {}, {}) : make_adamw(arena, {.lr = 0.01f}))),
        trainer(next_token_objective(model), arena, *optimizer, *comm, {.batch = kBatch, .seq = kSeq, .graphs = graphs}) {}

  // Random tokens, a document border in the middle; two micro-steps.
  StepState step(uint64_t step) {
    const FillBatch fill = [&](int64_t m, const BatchView& into) { test::fill_random(step, m, kVocab, into); };
    REQUIRE(trainer.start({.micro_steps = 2, .valid_targets = 2 * kBatch * (kSeq - 1), .lr = 1, .clip_norm = 1, .z_loss = 1e-4f}, fill));
    return trainer.result();
  }

  void set_values(const std::vector<double>& values) {
    const Tensor from = Tensor::from(values, {static_cast<int64_t>(values.size())}, arena.values().dtype(), arena.values().device());
    copy_bytes(arena.values().impl().data, arena.values().device(), from.impl().data, from.device(), static_cast<size_t>(from.view().bytes()));
  }
};

// Steps on cuda:0 while this lives may use no candidate `host`.
class NoHostKernels {
 public:
  NoHostKernels() = default;
  ~NoHostKernels() { CHECK(sim::runtime_counters().host_kernels == before_); }
  NoHostKernels(const NoHostKernels&) = delete;
  NoHostKernels& operator=(const NoHostKernels&) = delete;

 private:
  uint64_t before_ = sim::runtime_counters().host_kernels;
};

double norm_of(const std::vector<double>& a, const std::vector<double>& b, Range range) {
  double squares = 0;
  for (int64_t i = range.begin; i < range.end; ++i) {
    const double difference = a[static_cast<size_t>(i)] - (b.empty() ? 0 : b[static_cast<size_t>(i)]);
    squares += difference * difference;
  }
  return std::sqrt(squares);
}

std::optional<Device> simulated_gpu() {
  for (const Device device : test::devices()) {
    if (device.type == DeviceType::cuda && runtime(device.type).simulated()) return device;
  }
  return {};
}

TEST_CASE("gradients of the CUDA kernels are as near to float64 as the CPU's", "[cuda]") {
  const std::optional<Device> gpu = simulated_gpu();
  if (!gpu) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const bool is_llama = GENERATE(false, true);
  CAPTURE(name_of(dtype), is_llama);
  const TransformerConfig shape = is_llama ? llama() : gpt2();
  Session here(Device{}, dtype, shape, is_llama), there(*gpu, dtype, shape, is_llama), exact(Device{}, DType::f64, shape, is_llama);
  const NoHostKernels none;
  // Roundings of the dtype are the same in number on both devices and in other places: their sum may be luckier on one. Sums in f32 are another
  // order.
  const double factor = 4, least = dtype == DType::f32 ? 0x1p-20 : 0x1p-7;
  for (uint64_t step = 0; step < 50; ++step) {
    CAPTURE(step);
    const std::vector<double> values = here.arena.values().to_vector();
    there.set_values(values);
    exact.set_values(values);
    const StepState cpu = here.step(step), cuda = there.step(step), want = exact.step(step);
    const std::vector<double> g_cpu = here.arena.grads().to_vector(), g_cuda = there.arena.grads().to_vector(), g = exact.arena.grads().to_vector();
    CHECK(std::abs(cuda.loss - want.loss) <= factor * std::abs(cpu.loss - want.loss) + least / 16 * want.loss);
    CHECK(std::abs(cuda.grad_norm - want.grad_norm) <= factor * std::abs(cpu.grad_norm - want.grad_norm) + least * want.grad_norm);
    for (const Parameter& parameter : there.arena.parameters()) {
      const Range range = there.arena.range(parameter);
      const double size = norm_of(g, {}, range), cpu_error = norm_of(g_cpu, g, range), cuda_error = norm_of(g_cuda, g, range);
      INFO(parameter.name() << ": gradient " << size << ", the CPU off by " << cpu_error << ", CUDA by " << cuda_error);
      CHECK(size > 0);
      CHECK(cuda_error <= factor * cpu_error + least * size);
    }
  }
}

TEST_CASE("a run by the CUDA kernels has the same bits in every order of threads and asynchronous operations", "[cuda]") {
  const std::optional<Device> gpu = simulated_gpu();
  if (!gpu) return;
  const DType dtype = GENERATE(DType::f32, DType::bf16);
  const bool is_llama = GENERATE(false, true);
  CAPTURE(name_of(dtype), is_llama);
  const NoHostKernels none;
  const sim::Options before = sim::options();
  const auto run = [&](sim::AsyncMode mode, uint64_t seed, bool graphs = false) {
    sim::Options options = before;
    options.mode = mode;
    options.seed = seed;
    sim::set_options(options);
    Session session(*gpu, dtype, is_llama ? llama() : gpt2(), is_llama, graphs);
    std::vector<double> bits;
    for (uint64_t step = 0; step < 10; ++step) {
      const StepState state = session.step(step);
      bits.push_back(state.loss);
      bits.push_back(state.grad_norm);
    }
    const std::vector<double> values = session.optimizer->masters().to_vector();
    bits.insert(bits.end(), values.begin(), values.end());
    return bits;
  };
  const std::vector<double> eager = run(sim::AsyncMode::eager, 1);
  CHECK((run(sim::AsyncMode::lazy, 1) == eager));
  CHECK((run(sim::AsyncMode::random, 1) == eager));
  for (uint64_t seed : {2, 3}) CHECK((run(sim::AsyncMode::random, seed, true) == eager));  // as graphs
  sim::set_options(before);
}

}  // namespace
}  // namespace heddle
