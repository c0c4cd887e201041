#include "core/staging.h"

#include <algorithm>

#include "kernels/api/check.h"

namespace heddle {

Staging::Staging(Device device, size_t bytes, int slots) : device_(device) {
  for (int i = 0; i < slots; ++i) slots_.push_back({PinnedMemory(device, bytes), Event(device)});
}

Staging::~Staging() {
  try {
    for (const Slot& slot : slots_) {
      if (!slot.sent.reached()) slot.sent.synchronize();
    }
  } catch (const Error&) {
    // The device is lost, and its copies with it; the next call says so.
  }
}

std::span<std::byte> Staging::next() {
  at_ = (at_ + 1) % slots_.size();
  Slot& slot = slots_[at_];
  if (!slot.sent.reached()) slot.sent.synchronize();
  return {slot.memory.data(), slot.memory.bytes()};
}

void Staging::send(void* to, Stream stream, size_t bytes) {
  Slot& slot = slots_[at_];
  copy_async(to, device_, slot.memory.data(), Device{}, std::min(bytes, slot.memory.bytes()), stream);
  slot.sent.record(stream);
}

}  // namespace heddle
