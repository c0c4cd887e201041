// The device plane of GPUs.
#pragma once

#include <memory>

#include "parallel/communicator.h"
#include "parallel/control.h"

namespace heddle {

// NCCL between the ranks of `control`, each on a device of its own: Error(usage) names two that share one. A rank that does not come, at the start or
// to a call, is an Error(hung) after `patience` seconds, never a wait for ever; an error of the library that its kernels would wait on for ever is
// told where the host waits for the device anyway. Calls run on a stream of their own of the highest priority. Error(no_device) in a build without
// NCCL.
std::unique_ptr<Communicator> nccl_communicator(Control& control, Device device, double patience = 300, const CommunicatorOptions& options = {});

// Error(usage) naming two ranks of `world` that use the same GPU, on every rank. For groups of ranks none of which knows all: each communicator looks
// at its own.
void require_own_gpus(Control& world, Device device, double patience);

}  // namespace heddle
