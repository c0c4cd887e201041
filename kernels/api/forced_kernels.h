// Kernels chosen by name for as long as one object lives.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "kernels/api/kernel.h"

namespace heddle::kernels {

// Forces every choice ("matmul=eigen", as --kernel takes it); when it dies those ops choose for themselves again. Throws what force_kernel() does,
// and then leaves nothing forced.
class ForcedKernels {
 public:
  ForcedKernels() = default;
  explicit ForcedKernels(std::span<const std::string> choices);
  ~ForcedKernels();
  ForcedKernels(ForcedKernels&&) = delete;
  ForcedKernels& operator=(ForcedKernels&& other) noexcept {
    ops_.swap(other.ops_);
    return *this;
  }

 private:
  std::vector<std::string> ops_;
};

}  // namespace heddle::kernels
