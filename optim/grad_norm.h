// The global gradient norm and what follows from it, decided on the device; and a step's StepState there.
#pragma once

#include "core/arena.h"
#include "core/device.h"
#include "kernels/api/step_state.h"

namespace heddle {

// StepState in the memory of a device, the way there and back, and the two kernels around an optimizer step.
class StepControl {
 public:
  explicit StepControl(Device device);

  StepState* device_state() const { return reinterpret_cast<StepState*>(memory_->data()); }

  // Fills loss, grad_norm, clip_scale, finite and apply from arena.grads(), whose padding is zero and counts nothing, and from the step's mean loss
  // (); without it the norm alone decides.
  void finish_norm(const Arena& arena, const Tensor& loss = {});
  // After the optimizers.
  void advance();

  // Sends the state as it is here on its way to the host, without waiting; take_result() waits for it, once for each send_result().
  void send_result();
  StepState take_result();

  // Between steps alone: both wait.
  void set(const StepState& host);
  StepState get() const;

 private:
  Device device_;
  std::shared_ptr<Storage> memory_;
  Tensor squared_;  // (1) f64
  PinnedMemory result_;
  Event sent_;
};

}  // namespace heddle
