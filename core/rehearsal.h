// A rehearsal: all that the host does for a step is done, tensors, graph, optimizer and schedule, and no kernel runs and no memory is touched. What
// the allocator counts meanwhile is what the step itself takes, on any device, whether this machine has it or not.
//
//   const Rehearsal rehearsal;
//   ... make a model, an arena, an optimizer; run a step ...
//   memory_stats(device).peak_total
//
// Allocations are addresses, small ones memory; copies and fills do nothing; every value the host reads is 0. What is made in a rehearsal ends in it.
// One at a time, and no other thread uses tensors meanwhile.
#pragma once

#include "core/device.h"
#include "kernels/api/rehearsal.h"

namespace heddle {

class Rehearsal {
 public:
  Rehearsal();  // Error while another one is on
  ~Rehearsal();
  Rehearsal(const Rehearsal&) = delete;
  Rehearsal& operator=(const Rehearsal&) = delete;

  // Hears of every kernel that is not run.
  void listen(std::function<void(const kernels::RehearsedKernels::Call&)> listener) { kernels_.listen(std::move(listener)); }

 private:
  kernels::RehearsedKernels kernels_;
};

bool rehearsing();

void set_rehearsing(bool);  // for Rehearsal

// What runtime() gives meanwhile: one device of either type.
Runtime& rehearsal_runtime(DeviceType);

}  // namespace heddle
