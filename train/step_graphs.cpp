#include "train/step_graphs.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "core/queued_ops.h"
#include "kernels/api/check.h"
#include "kernels/api/printable.h"
#include "parallel/pulse.h"

namespace heddle {
namespace {

constexpr int64_t kMost = 16;  // graphs of a step: each takes memory of the device for its nodes

}  // namespace

StepGraphs::StepGraphs(Device device, bool on, bool each, std::function<void(const std::string&)> tell)
    : device_(device), on_(on && device.type == DeviceType::cuda), each_(each), tell_(std::move(tell)) {}

size_t StepGraphs::role(int64_t micro_step) const {
  if (each_) return static_cast<size_t>(micro_step);
  if (micro_step == 0) return 0;
  return micro_step + 1 < shape_.micro_steps ? 1 : 2;
}

void StepGraphs::begin_step(const Shape& shape) {
  mode_ = Mode::direct;
  if (!on_) return;
  if (shape != shape_) {
    graphs_.clear();
    shape_ = shape;
    warm_ = false;
  }
  const int64_t roles = each_ ? shape.micro_steps : std::min<int64_t>(shape.micro_steps, 3);
  if (roles > kMost) {
    if (!warm_ && tell_) tell_(concat("graphs: a step of ", shape.micro_steps, " micro-steps, each of its own, is launched kernel by kernel"));
    warm_ = true;
    return;
  }
  if (!graphs_.empty()) {
    mode_ = Mode::replay;
  } else if (warm_) {
    mode_ = Mode::record;
    seconds_ = 0;
    graphs_.resize(each_ ? static_cast<size_t>(shape.micro_steps) : 3);
    synchronize(device_);
    release_cached(device_);
  }
}

bool StepGraphs::run(int64_t micro_step, Stream stream, const std::function<void()>& work) {
  if (mode_ == Mode::direct) {
    work();
    return true;
  }
  std::optional<Graph>& graph = graphs_[role(micro_step)];
  if (!graph) {
    using Clock = std::chrono::steady_clock;
    const Clock::time_point begin = Clock::now();
    try {
      graph = Graph::capture(stream, work);
    } catch (const Error& error) {
      graphs_.clear();
      on_ = false;
      mode_ = Mode::direct;
      const std::string why = concat("a step cannot be recorded: ", error.what());
      if (micro_step > 0) fail("graphs", concat(why, "; --graphs off runs it kernel by kernel"), error.code());
      if (tell_) tell_(concat("graphs: ", why, "; kernels are launched one by one"));
      return false;
    }
    seconds_ += std::chrono::duration<double>(Clock::now() - begin).count();
  }
  queued_ops.add("a recorded micro-step");
  note_collective("graph");  // those in it begin when the device comes to them
  graph->launch();
  return true;
}

void StepGraphs::end_step() {
  if (mode_ == Mode::record && tell_) {
    const auto count = std::count_if(graphs_.begin(), graphs_.end(), [](const auto& graph) { return graph.has_value(); });
    tell_(concat("graphs: a step of ", counted(shape_.micro_steps, "micro-step"), " was recorded as ", counted(static_cast<int64_t>(count), "graph"),
                 " in ", std::lround(1e3 * seconds_), " ms"));
  }
  warm_ = true;
}

void StepGraphs::stop_step() {
  if (mode_ == Mode::record) graphs_.clear();
}

}  // namespace heddle
