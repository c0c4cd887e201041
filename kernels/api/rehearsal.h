// Kernels that do nothing: for counting what a step takes without taking it (core/rehearsal.h).
#pragma once

namespace heddle::kernels {

// From its first to its last moment every op of every device type runs the candidate "rehearsal": it asks for the scratch of the candidate that
// the op would choose by itself (none where no candidate takes the arguments), and does nothing. One at a time. What was forced before is forgotten.
class RehearsedKernels {
 public:
  RehearsedKernels();
  ~RehearsedKernels();
  RehearsedKernels(const RehearsedKernels&) = delete;
  RehearsedKernels& operator=(const RehearsedKernels&) = delete;
};

}  // namespace heddle::kernels
