#include "core/workspace.h"

#include <map>
#include <mutex>
#include <tuple>

#include "core/rehearsal.h"
#include "kernels/api/check.h"

namespace heddle {

std::span<std::byte> zeroed_workspace(Stream stream) {
  static std::mutex mutex;
  static auto& blocks = *new std::map<std::tuple<bool, Device, void*>, std::byte*>;  // streams are never destroyed, and neither are these
  std::lock_guard lock(mutex);
  std::byte*& block = blocks[{rehearsing(), stream.device, stream.native}];
  if (!block) {
    Runtime& device = runtime(stream.device.type);
    HEDDLE_CHECK(!device.capturing(stream), "workspace", name_of(stream.device), ": a captured stream needs its workspace; run the work once before");
    block = static_cast<std::byte*>(device.allocate(stream.device.index, kZeroedBytes));
    if (!block) fail("workspace", concat(name_of(stream.device), ": no memory for ", kZeroedBytes, " bytes"), ExitCode::out_of_memory);
    device.fill(block, 0, kZeroedBytes, stream);
  }
  return {block, kZeroedBytes};
}

}  // namespace heddle
