// The global gradient norm and what follows from it, decided on the device; and a step's StepState there.
#pragma once

#include <array>

#include "core/arena.h"
#include "core/device.h"
#include "kernels/api/step_state.h"

namespace heddle {

// StepState in the memory of a device, the way there and back, and the two kernels around an optimizer step.
class StepControl {
 public:
  explicit StepControl(Device device);

  StepState* device_state() const { return reinterpret_cast<StepState*>(memory_->data()); }

  // Decides about the step (kernels/api/optimizer.h) from arena.grads(), whose padding is zero and counts nothing, from the ranks' shares of its mean
  // loss (ranks) and from their faults (ranks) i32; without them the norm alone decides.
  void finish_norm(const Arena& arena, const Tensor& losses = {}, const View& faults = {});
  // The same from a squared norm (1) f64, for gradients of which a rank has only its part.
  void finish_norm(const Tensor& squared, const Tensor& losses, const View& faults);
  // After the optimizers.
  void advance();

  // Sends the state as it is here on its way to the host, without waiting. take_result() waits for the oldest that was not taken yet; up to kResults
  // may be on their way.
  static constexpr size_t kResults = 2;
  void send_result();
  StepState take_result();

  // Between steps alone: both wait.
  void set(const StepState& host);
  StepState get() const;

 private:
  Device device_;
  std::shared_ptr<Storage> memory_;
  Tensor squared_;  // (1) f64
  struct Slot {
    PinnedMemory memory;
    Event sent;
  };
  std::array<Slot, kResults> ring_;
  size_t sent_ = 0, taken_ = 0;  // so far
};

}  // namespace heddle
