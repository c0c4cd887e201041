// The ops this thread queued last: what a GPU's error can be about. A kernel's fault is heard of at some later call, which has nothing to do with it.
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>

#include "kernels/api/check.h"

namespace heddle {

struct QueuedOps {
  std::array<std::string_view, 6> names;  // names of Kernel slots, which live as long as the program
  size_t next = 0;

  void add(std::string_view op) {
    names[next] = op;
    next = (next + 1) % names.size();
  }
};
inline thread_local constinit QueuedOps queued_ops;

// "; ops queued last: matmul, rope, matmul"; "" before the first.
inline std::string queued_ops_text() {
  std::string text;
  for (size_t i = 1; i <= queued_ops.names.size(); ++i) {
    const std::string_view name = queued_ops.names[(queued_ops.next + queued_ops.names.size() - i) % queued_ops.names.size()];
    if (!name.empty()) text += concat(text.empty() ? "; ops queued last, the newest first: " : ", ", name);
  }
  return text;
}

}  // namespace heddle
