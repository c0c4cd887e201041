#include "optim/grad_norm.h"

#include <cstring>

#include "core/launch.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/reduce.h"

namespace heddle {

StepControl::StepControl(Device device)
    : device_(device),
      memory_(allocate(device, sizeof(StepState), MemoryTag::workspace, current_stream(device))),
      squared_(Tensor::zeros({1}, DType::f64, device, MemoryTag::workspace)),
      result_(device, sizeof(StepState)),
      sent_(device) {
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
  const Stream stream = current_stream(device_);
  copy_async(result_.data(), Device{}, memory_->data(), device_, sizeof(StepState), stream);
  sent_.record(stream);
}

StepState StepControl::take_result() {
  if (!sent_.reached()) sent_.synchronize();
  StepState host;
  std::memcpy(&host, result_.data(), sizeof host);
  return host;
}

void StepControl::finish_norm(const Arena& arena, const Tensor& loss) {
  launch(kernels::sum, {.x = arena.grads().view(), .out = {squared_.view(), false}, .squares = true}, device_);
  launch(kernels::finish_norm, {.squared_norm = squared_.view(), .step = device_state(), .loss = loss ? loss.view() : View{}}, device_);
}

void StepControl::advance() {
  launch(kernels::advance_step, {.step = device_state()}, device_);
}

}  // namespace heddle
