// How a checkpoint's bytes enter and leave the memory of a device. For the CPU, whose memory is the host's, both are empty: plain copies.
#pragma once

#include "checkpoint/checkpoints.h"
#include "checkpoint/loading.h"
#include "core/device.h"

namespace heddle {

// The bytes come after all that is queued on the device's current stream; the host waits until they are there.
inline CopyIn copy_into(Device device) {
  if (device.type == DeviceType::cpu) return {};
  return [device](const View& to, const std::byte* from, size_t bytes) { copy_bytes(to.data, device, from, Device{}, bytes); };
}
inline CopyOut copy_out_of(Device device) {
  if (device.type == DeviceType::cpu) return {};
  return [device](std::byte* to, const View& from, size_t bytes) { copy_bytes(to, Device{}, from.data, device, bytes); };
}

// For saves of a state in `device`'s memory: copies into pinned memory, in the order of the device's current stream. The training thread waits for
// nothing; kernels that come later may change the state.
QueuedCopies queued_copies(Device device);

}  // namespace heddle
