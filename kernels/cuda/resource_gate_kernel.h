// A kernel as the gate knows it: its name in the tables, how it is launched, how much of it fits a multiprocessor. For resource_gate.cpp.
#pragma once

#include <string>
#include <vector>

#include "kernels/cuda/resource_gate_loops.h"

namespace heddle::kernels::cuda {

struct Kernel {
  std::string key;          // "gemm_sm80_kernel{128,256,32,64,64,4,0,0,0}"
  std::string name;         // "gemm_sm80_kernel"
  std::vector<int> values;  // of its configuration
};

// From a mangled instantiation: the function's name and the numbers between the braces of Configured<...>.
Kernel kernel_of(const std::string& mangled);

struct Launch {
  int threads = 0, dynamic_shared = 0;
  int registers_asked = 0;  // of a block, by setmaxnreg
  TmaStage stage;
};

// How the kernel is launched follows from its configuration. Error for a kernel that is not known here.
Launch launch_of(const Kernel& kernel);

struct Occupancy {
  int blocks = 0, warps = 0;  // on a multiprocessor
};

// arch: 80 or 90.
Occupancy occupancy(const Launch& launch, int registers, int static_shared, int arch);

}  // namespace heddle::kernels::cuda
