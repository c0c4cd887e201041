// What an optimizer step takes, counted in a rehearsal (core/rehearsal.h): exact, on any machine, in milliseconds.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/storage.h"
#include "kernels/api/rehearsal.h"
#include "models/transformer.h"
#include "train/config/run_config.h"

namespace heddle {

struct StepCount {
  MemoryStats memory;  // of one rank's device, once steps repeat: what stays (live) and the peaks, as its allocator hands out memory
  struct Collective {
    std::string name;  // "all_reduce"
    int64_t calls = 0;
    double bytes = 0;  // of the data, summed over the calls
  };
  std::vector<Collective> collectives;  // of rank 0 in one step, in the order of their first call
};

// Rank 0 of `ranks` data-parallel ones that train `config` (resolved), whose model is `shape`. `device`: where it would run. Scratch of CUDA kernels
// is counted in builds that have them.
StepCount count_step(const RunConfig& config, const TransformerConfig& shape, int ranks, DeviceType device);

// The kernels of such a step, in the order of their first call.
struct KernelCalls {
  std::string op, candidate, shape;  // candidate: that would run; empty in a build that has none for the device
  kernels::Cost cost;                // of one call
  double calls = 0;
};
// `heard` is called at the first call of each of them.
std::vector<KernelCalls> count_kernels(const RunConfig& config, const TransformerConfig& shape, int ranks, DeviceType device,
                                       const std::function<void(const kernels::RehearsedKernels::Call&)>& heard = {});

}  // namespace heddle
