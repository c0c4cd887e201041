#include "train/step_count.h"

#include <algorithm>
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

StepCount count_step(const RunConfig& given, const TransformerConfig& shape, int ranks, DeviceType device) {
  RunConfig config = given;
  config.device = device == DeviceType::cpu ? DeviceChoice::cpu : DeviceChoice::cuda;
  config.memory_check = false;
  config.graphs = GraphsChoice::off;                                      // what the host does once is counted in the steps that follow
  if (const Device there{device, 0}; has_device(there)) runtime(device);  // lists its kernels
  StepCount count;
  const Rehearsal rehearsal;
  StepTimer timer(config, shape, "dry-run", std::make_unique<SilentCommunicator>(ranks, count.collectives), true);
  // Micro-steps after the second repeat it, except where their gradients meet in a tree.
  const int64_t all = std::max<int64_t>(config.total_batch_tokens > 0 ? micro_steps(config) : 1, 1);
  const int64_t some = config.deterministic ? all : std::min<int64_t>(all, 2);
  for (int step = 0; step < 3; ++step) {  // the first finds no block to use again
    count.collectives.clear();
    timer.step(some);
  }
  count.memory = memory_stats(timer.device);
  return count;
}

}  // namespace heddle
