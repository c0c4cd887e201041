#include "infer/device_state.h"

#include <memory>
#include <new>

#include "kernels/api/check.h"

namespace heddle {
namespace {

// Pinned where the system gives as much: copies then go at the bus's rate and none of them stops the host. Else pageable memory, which is right too.
std::shared_ptr<std::byte[]> host_memory(Device device, size_t bytes) {
  try {
    const auto pinned = std::make_shared<PinnedMemory>(device, bytes);
    return {pinned, pinned->data()};
  } catch (const Error& e) {
    if (e.code() != ExitCode::out_of_memory) throw;
    return std::shared_ptr<std::byte[]>(new std::byte[bytes]);
  }
}

}  // namespace

QueuedCopies queued_copies(Device device) {
  if (device.type == DeviceType::cpu) return {};
  const auto last = std::make_shared<Event>(device);
  return {.memory = [device](size_t bytes) { return host_memory(device, bytes); },
          .queue = [device](std::byte* to, const View& from,
                            size_t bytes) { copy_async(to, Device{}, from.data, device, bytes, current_stream(device)); },
          .queued =
              [device, last] {
                last->record(current_stream(device));
                return [last] { last->synchronize(); };
              }};
}

}  // namespace heddle
