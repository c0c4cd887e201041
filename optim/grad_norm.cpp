#include "optim/grad_norm.h"

#include <cstring>

#include "core/launch.h"
#include "kernels/api/check.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/reduce.h"

namespace heddle {

StepControl::StepControl(Device device)
    : device_(device),
      memory_(allocate(device, sizeof(StepState), MemoryTag::workspace, current_stream(device))),
      squared_(Tensor::zeros({1}, DType::f64, device, MemoryTag::workspace)),
      ring_{Slot{PinnedMemory(device, sizeof(StepState)), Event(device)}, Slot{PinnedMemory(device, sizeof(StepState)), Event(device)}} {
  set(StepState{});
}

void StepControl::set(const StepState& host) {
  copy_bytes(memory_->data(), device_, &host, Device{}, sizeof host);
}

StepState StepControl::get() const {
  StepState host;
  copy_bytes(&host, Device{}, memory_->data(), device_, sizeof host);
  return host;
}

void StepControl::send_result() {
  HEDDLE_CHECK(sent_ - taken_ < kResults, "step", "the results of ", kResults, " steps are on their way: take one");
  const Stream stream = current_stream(device_);
  Slot& slot = ring_[sent_++ % kResults];
  copy_async(slot.memory.data(), Device{}, memory_->data(), device_, sizeof(StepState), stream);
  slot.sent.record(stream);
}

StepState StepControl::take_result() {
  HEDDLE_CHECK(taken_ < sent_, "step", "no result is on its way");
  const Slot& slot = ring_[taken_++ % kResults];
  if (!slot.sent.reached()) slot.sent.synchronize();
  StepState host;
  std::memcpy(&host, slot.memory.data(), sizeof host);
  return host;
}

void StepControl::finish_norm(const Arena& arena, const Tensor& losses, const View& faults) {
  launch(kernels::sum, {.x = arena.grads().view(), .out = {squared_.view(), false}, .squares = true}, device_);
  finish_norm(squared_, losses, faults);
}

void StepControl::finish_norm(const Tensor& squared, const Tensor& losses, const View& faults) {
  launch(kernels::finish_norm, {.squared_norm = squared.view(), .step = device_state(), .loss = losses ? losses.view() : View{}, .faults = faults},
         device_);
}

void StepControl::advance() {
  launch(kernels::advance_step, {.step = device_state()}, device_);
}

}  // namespace heddle
