#include "core/recorded.h"

#include "core/queued_ops.h"
#include "kernels/api/check.h"

namespace heddle {

Recorded::Recorded(Device device, bool on, std::string_view what, std::function<void(const std::string&)> tell)
    : device_(device), on_(on && device.type == DeviceType::cuda), what_(what), tell_(std::move(tell)) {}

bool Recorded::run(const std::function<void()>& work) {
  const bool replay = graph_.has_value();
  if (on_ && warm_ && !replay) {
    try {
      graph_ = Graph::capture(current_stream(device_), work);
    } catch (const Error& error) {
      on_ = false;
      if (tell_) tell_(concat("graphs: ", what_, " cannot be recorded: ", error.what(), "; kernels are launched one by one"));
    }
  }
  if (graph_) {
    queued_ops.add(what_);
    graph_->launch();
    return !replay;
  }
  run_directly(work);
  return true;
}

void Recorded::run_directly(const std::function<void()>& work) {
  work();
  warm_ = true;
}

}  // namespace heddle
