// The devices a test runs on: cpu always, cuda:0 where the build and the machine have one (simulated or real; a test program that CMake is told to be
// SIMULATED_GPU has a simulated one in every build with kernels/sim).
//
//   for (Device device : test::devices()) { ... }
#pragma once

#include <vector>

#include "core/device.h"

namespace heddle::test {

inline std::vector<Device> devices() {
  std::vector<Device> all{Device{}};
  constexpr Device cuda{DeviceType::cuda, 0};
  if (has_device(cuda)) all.push_back(cuda);
  return all;
}

}  // namespace heddle::test
