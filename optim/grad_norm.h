// The global gradient norm and what follows from it, decided on the device.
#pragma once

#include "core/arena.h"
#include "kernels/api/step_state.h"

namespace heddle {

// StepState in the memory of a device, and the two kernels around an optimizer step.
class StepControl {
 public:
  explicit StepControl(Device device);

  StepState* device_state() const { return reinterpret_cast<StepState*>(memory_->data()); }
  void set(const StepState& host);  // host to device, in stream order
  StepState get() const;            // device to host; waits

  // Fills grad_norm, clip_scale, finite and apply from arena.grads(), whose padding is zero and counts nothing, and from the step's mean loss ();
  // without it the norm alone decides.
  void finish_norm(const Arena& arena, const Tensor& loss = {});
  // After the optimizers.
  void advance();

 private:
  Device device_;
  std::shared_ptr<Storage> memory_;
  Tensor squared_;  // (1) f64
};

}  // namespace heddle
