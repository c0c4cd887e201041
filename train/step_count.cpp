#include "train/step_count.h"

#include <algorithm>
#include <map>
#include <memory>

#include "core/rehearsal.h"
#include "kernels/api/kernel.h"
#include "train/config/resolve.h"
#include "train/config/shape.h"
#include "train/step_timer.h"

namespace heddle {
namespace {

// Rank 0 among ranks that are not there: counts what it is asked for.
class SilentCommunicator final : public Communicator {
 public:
  SilentCommunicator(int size, std::vector<StepCount::Collective>& counts) : size_(size), counts_(counts) {}

  int rank() const override { return 0; }
  int size() const override { return size_; }
  std::string_view name() const override { return "silent"; }

  Work all_reduce(View data, Stream) override { return count("all_reduce", data); }
  Work reduce_scatter(View in, View out, std::span<const int64_t> counts, Stream) override {
    part_counts("reduce_scatter", in, out, counts, 0, size_);
    return count("reduce_scatter", in);
  }
  Work all_gather(View in, View out, std::span<const int64_t> counts, Stream) override {
    part_counts("all_gather", out, in, counts, 0, size_);
    return count("all_gather", out);
  }
  Work broadcast(View data, int, Stream) override { return count("broadcast", data); }
  Work grouped(std::span<const Transfer> transfers, Stream) override {
    for (const Transfer& t : transfers) count(t.send ? "send" : "receive", t.data);
    return {};
  }
  void abort() override {}

 private:
  Work count(std::string_view name, const View& data) {
    auto it = std::find_if(counts_.begin(), counts_.end(), [&](const StepCount::Collective& c) { return c.name == name; });
    if (it == counts_.end()) it = counts_.insert(it, {std::string(name)});
    ++it->calls;
    it->bytes += static_cast<double>(data.bytes());
    return {};
  }

  int size_;
  std::vector<StepCount::Collective>& counts_;
};

}  // namespace

namespace {

// What both count: a step of one rank, in a rehearsal.
class CountedSteps {
 public:
  CountedSteps(const RunConfig& given, const TransformerConfig& shape, int ranks, DeviceType device)
      : listed_(list_kernels(device)),
        timer_(counted(given, device), shape, "dry-run", std::make_unique<SilentCommunicator>(ranks, collectives_), true) {}

  Rehearsal& rehearsal() { return rehearsal_; }
  const StepTimer& timer() const { return timer_; }
  const std::vector<StepCount::Collective>& collectives() const { return collectives_; }
  void step(int64_t micro_steps) {
    collectives_.clear();
    timer_.step(micro_steps);
  }

 private:
  static bool list_kernels(DeviceType device) {
    const bool here = has_device({device, 0});
    if (here) runtime(device);
    return here;
  }
  static RunConfig counted(RunConfig config, DeviceType device) {
    config.device = device == DeviceType::cpu ? DeviceChoice::cpu : DeviceChoice::cuda;
    config.memory_check = false;
    config.graphs = GraphsChoice::off;  // what the host does once is counted in the steps that follow
    return config;
  }
  std::vector<StepCount::Collective> collectives_;
  bool listed_;  // before the rehearsal begins
  Rehearsal rehearsal_;
  StepTimer timer_;
};

int64_t micro_steps_of(const RunConfig& config) {
  return std::max<int64_t>(config.total_batch_tokens > 0 ? micro_steps(config) : 1, 1);
}

}  // namespace

StepCount count_step(const RunConfig& config, const TransformerConfig& shape, int ranks, DeviceType device) {
  CountedSteps steps(config, shape, ranks, device);
  // Micro-steps after the second repeat it, except where their gradients meet in a tree.
  const int64_t all = micro_steps_of(config), some = config.deterministic ? all : std::min<int64_t>(all, 2);
  for (int step = 0; step < 3; ++step) steps.step(some);  // the first finds no block to use again
  return {memory_stats(steps.timer().device), steps.collectives()};
}

std::vector<KernelCalls> count_kernels(const RunConfig& config, const TransformerConfig& shape, int ranks, DeviceType device,
                                       const std::function<void(const kernels::RehearsedKernels::Call&)>& heard) {
  CountedSteps steps(config, shape, ranks, device);
  std::vector<KernelCalls> kernels;
  std::map<std::string, size_t> index;
  double weight = 0;
  steps.rehearsal().listen([&](const kernels::RehearsedKernels::Call& call) {
    const auto [at, is_new] = index.try_emplace(concat(call.op, '\n', call.candidate, '\n', call.shape, '\n', call.cost.bytes), kernels.size());
    if (is_new) {
      kernels.push_back({std::string(call.op), std::string(call.candidate), call.shape, call.cost, 0});
      if (heard) heard(call);
    }
    kernels[at->second].calls += weight;
  });
  // Micro-steps between the first and the last are alike: their share of a step of two, of which a step of one is taken away.
  const int64_t all = micro_steps_of(config);
  steps.step(std::min<int64_t>(all, 2));
  if (config.deterministic || all <= 2) {
    weight = 1;
    steps.step(all);
  } else {
    weight = static_cast<double>(all - 1);
    steps.step(2);
    weight = -static_cast<double>(all - 2);
    steps.step(1);
  }
  steps.rehearsal().listen({});
  std::erase_if(kernels, [](const KernelCalls& k) { return k.calls == 0; });
  return kernels;
}

}  // namespace heddle
