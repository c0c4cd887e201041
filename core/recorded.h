// Work that is queued again and again in the same way: recorded as a graph at its second run, and launched from then on.
//
// The first run is direct: libraries, workspaces and what is made at the first use are there then. What cannot be recorded is said once, and runs
// directly.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "core/graph.h"

namespace heddle {

class Recorded {
 public:
  // `what` it is, a literal, for what `tell` and errors say: "a decoding step". Off, or on a CPU: all runs are direct.
  Recorded(Device, bool on, std::string_view what, std::function<void(const std::string&)> tell = {});

  // On the device's current stream. `work` does the same each time, with tensors that live as long as this object; what it makes may be read until
  // the next run. False: recorded earlier, `work` was not called.
  bool run(const std::function<void()>& work);
  // Directly, whatever was recorded: where this run has to wait for what was queued before it and the others have not.
  void run_directly(const std::function<void()>& work);
  bool replays() const { return graph_.has_value(); }

 private:
  Device device_;
  bool on_, warm_ = false;
  std::string_view what_;
  std::function<void(const std::string&)> tell_;
  std::optional<Graph> graph_;
};

}  // namespace heddle
