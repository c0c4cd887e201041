// A simulated GPU whose ops the host does, by the CPU's kernels: `const kernels::ForcedKernels forced(test::host_kernels());`.
#pragma once

#include <string>
#include <vector>

#include "kernels/api/forced_kernels.h"
#include "kernels/api/slots.h"
#include "tests/support/devices.h"

namespace heddle::test {

// "matmul=host", "rope=host", ...: every op that has this candidate.
inline std::vector<std::string> host_kernels() {
  devices();  // fills the lists
  std::vector<std::string> choices;
  kernels::for_each_kernel([&](const auto& kernel) {
    for (const auto& candidate : kernel.candidates(DeviceType::cuda)) {
      if (candidate.name == "host") choices.push_back(concat(kernel.op(), "=host"));
    }
  });
  return choices;
}

}  // namespace heddle::test
