// Batches and settings on their way to a device: pinned buffers used in turn, so that the host fills one while the copy of another is still queued.
//
//   Staging staging(device, bytes);            // two slots
//   std::span<std::byte> to_fill = staging.next();
//   ...                                         // the host writes
//   staging.send(tensor.impl().data, stream);   // queued; the host goes on
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/device.h"

namespace heddle {

class Staging {
 public:
  Staging(Device, size_t bytes, int slots = 2);
  ~Staging();  // waits for the copies that are queued

  // The slot that was sent longest ago. The host waits only if its copy has not run yet, slots - 1 sends later.
  std::span<std::byte> next();
  // Copies the first `bytes` of that slot (all of it by default) to the device, in stream order.
  void send(void* to, Stream, size_t bytes = SIZE_MAX);

 private:
  struct Slot {
    PinnedMemory memory;
    Event sent;
  };
  Device device_;
  std::vector<Slot> slots_;
  size_t at_ = 0;
};

}  // namespace heddle
