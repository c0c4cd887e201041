// Kernels that do nothing: for counting what a step takes without taking it (core/rehearsal.h).
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "kernels/api/cost.h"

namespace heddle::kernels {

// From its first to its last moment every op of every device type runs the candidate "rehearsal": it asks for the scratch of the candidate that
// the op would choose by itself (none where no candidate takes the arguments), and does nothing. One at a time. What was forced before is forgotten.
class RehearsedKernels {
 public:
  // A call that was not made.
  struct Call {
    std::string_view op;
    std::string_view candidate;  // that the op would choose by itself; empty: none takes the arguments
    std::string shape;           // shape_of_call()
    Cost cost;
    const void* args;  // of the op's type; while the listener runs
  };
  RehearsedKernels();
  ~RehearsedKernels();
  RehearsedKernels(const RehearsedKernels&) = delete;
  RehearsedKernels& operator=(const RehearsedKernels&) = delete;

  // Hears of every call from here on; an empty one ends it, as the end does.
  void listen(std::function<void(const Call&)> listener);
};

}  // namespace heddle::kernels
