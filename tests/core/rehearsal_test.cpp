// What a rehearsal's devices are: the steps they count are in tests/app and tests/train.
#include "core/rehearsal.h"

#include <set>

#include "core/device.h"
#include "core/storage.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

TEST_CASE("a rehearsal's streams differ on a GPU, where each has a pool of memory, and are the host on the CPU") {
  const Rehearsal rehearsal;
  for (const DeviceType type : {DeviceType::cpu, DeviceType::cuda}) {
    Runtime& device = rehearsal_runtime(type);
    CHECK(device.device_count() == 1);
    std::set<void*> natives = {device.default_stream(0).native};
    for (int i = 0; i < 3; ++i) natives.insert(device.create_stream(0, StreamPriority::high).native);
    if (type == DeviceType::cpu) {
      CHECK(natives == std::set<void*>{nullptr});
    } else {
      CHECK(natives.size() == 4);
      CHECK(natives.count(nullptr) == 0);
    }
  }
}

TEST_CASE("in a rehearsal memory is counted and not taken, and all is as before after it") {
  constexpr size_t kBytes = size_t{1} << 42;  // more than any machine has
  const Device gpu{DeviceType::cuda, 0};
  const size_t before = memory_stats(Device{}).live_total;
  {
    const Rehearsal rehearsal;
    CHECK(rehearsing());
    CHECK_THROWS(Rehearsal());
    const auto block = allocate(gpu, kBytes, MemoryTag::activation, current_stream(gpu));
    CHECK(memory_stats(gpu).live_total == kBytes);
  }
  CHECK(!rehearsing());
  CHECK(memory_stats(Device{}).live_total == before);
}

}  // namespace
}  // namespace heddle
