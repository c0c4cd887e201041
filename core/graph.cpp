#include "core/graph.h"

#include <utility>

#include "kernels/api/check.h"

namespace heddle {

Graph Graph::capture(Stream stream, const std::function<void()>& work) {
  Runtime& device = runtime(stream.device.type);
  const StreamGuard current(stream);
  Graph graph;
  graph.stream_ = stream;
  graph.memory_ = std::make_unique<GraphMemory>(stream.device);
  device.begin_capture(stream);
  try {
    work();
    graph.executable_ = device.end_capture(stream);
  } catch (...) {
    if (device.capturing(stream)) {
      try {
        device.destroy_graph(device.end_capture(stream));
      } catch (const Error&) {
        // The first error says what went wrong.
      }
    }
    throw;
  }
  graph.memory_->captured();
  return graph;
}

Graph::~Graph() {
  if (!executable_) return;
  Runtime& device = runtime(stream_.device.type);
  try {
    device.synchronize(stream_);  // its launches are done
  } catch (const Error&) {
    // The device is lost; the next call says so.
  }
  device.destroy_graph(executable_);
}

Graph::Graph(Graph&& other) noexcept
    : stream_(other.stream_), executable_(std::exchange(other.executable_, nullptr)), memory_(std::move(other.memory_)) {}
Graph& Graph::operator=(Graph&& other) noexcept {
  std::swap(stream_, other.stream_);
  std::swap(executable_, other.executable_);
  std::swap(memory_, other.memory_);
  return *this;
}

void Graph::launch() const {
  runtime(stream_.device.type).launch_graph(executable_, stream_);
}

}  // namespace heddle
