// The graphs of a step: what a micro-step queues behind its upload, recorded once for each role (the first of several, those between, the last with
// the reduction and the optimizer, or the only one) and launched from then on. A step of many small kernels otherwise costs the host more than the
// device. Source: CUDA C++ Programming Guide, "CUDA Graphs".
//
// The first step of a shape runs directly: libraries and workspaces are there then, and so is the memory of its largest moment, which goes back to
// the device before the second step records. A step of another shape begins anew.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/graph.h"

namespace heddle {

class StepGraphs {
 public:
  // What the work of a step depends on besides device memory.
  struct Shape {
    int64_t micro_steps = 0;
    float z_loss = 0;
    bool operator==(const Shape&) const = default;
  };
  // `each`: no two micro-steps of a step do the same. `tell` hears in a line of what was recorded, and why something was not. Off: all runs directly.
  StepGraphs(Device device, bool on, bool each, std::function<void(const std::string&)> tell);

  void begin_step(const Shape& shape);
  bool direct() const { return mode_ == Mode::direct; }
  bool replays() const { return mode_ == Mode::replay; }  // run() will not call its work
  // The work of a micro-step: called, recorded by a call and launched, or launched. False: it could not be recorded, nothing of it is queued, and
  // graphs are off from here on. Error where that comes to light in a later micro-step of a step that has begun.
  bool run(int64_t micro_step, Stream stream, const std::function<void()>& work);
  void end_step();
  // The step ends before its last micro-step: what was recorded of it alone is forgotten.
  void stop_step();

 private:
  enum class Mode : uint8_t { direct, record, replay };
  size_t role(int64_t micro_step) const;

  Device device_;
  bool on_, each_;
  std::function<void(const std::string&)> tell_;
  Mode mode_ = Mode::direct;
  Shape shape_;
  bool warm_ = false;  // a step of the shape has run directly
  double seconds_ = 0;
  std::vector<std::optional<Graph>> graphs_;  // by role
};

}  // namespace heddle
