// Simulated CUDA devices: how far the CPU's kernels stand in for CUDA's (kernels/sim/cudart/host_kernels.cpp).
#pragma once

namespace heddle::kernels {

// HEDDLE_SIM_HOST_KERNELS=only: they do every op, and no CUDA kernel is listed.
bool only_host_kernels();

}  // namespace heddle::kernels
