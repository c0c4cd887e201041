// Work that is recorded once and launched many times (CUDA graphs): for a step of many small kernels, whose launches cost more than they do.
//
// Arguments, addresses included, are those of the capture: what changes from launch to launch is read from memory that lives longer than the graph.
// Tensors that the work makes come from the pool of the device's graphs (GraphMemory); a captured host function and what it points to outlive the
// graph.
#pragma once

#include <functional>
#include <memory>

#include "core/storage.h"

namespace heddle {

class Graph {
 public:
  // Records what `work` queues on `stream`, made current for it, and on streams that events lead there and back. Nothing of it runs. Throws what
  // `work` throws, and Error when the device is the CPU, or when the work waits on the host.
  static Graph capture(Stream stream, const std::function<void()>& work);
  ~Graph();
  Graph(Graph&&) noexcept;
  Graph& operator=(Graph&&) noexcept;

  // On the stream it was captured on, so that graphs, which share their memory, follow each other.
  void launch() const;

 private:
  Graph() = default;
  Stream stream_;
  void* executable_ = nullptr;
  std::unique_ptr<GraphMemory> memory_;
};

}  // namespace heddle
