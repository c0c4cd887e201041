// The zeroed workspace: one for each stream, zero at first, and handed to kernels that have room for it.
#include "core/workspace.h"

#include <algorithm>
#include <vector>

#include "core/graph.h"
#include "core/launch.h"
#include "tests/support/devices.h"

namespace heddle {
namespace {

struct TicketArgs {
  std::span<std::byte> zeroed;
};
std::span<std::byte> handed;

DEVICE_TEST_CASE("every stream has zeroed memory of its own, and launches hand it out", "[workspace]") {
  const Device device = test::device();
  const Stream main = current_stream(device);
  const std::span<std::byte> mine = zeroed_workspace(main);
  CHECK(mine.size() == kZeroedBytes);
  CHECK(zeroed_workspace(main).data() == mine.data());
  std::vector<std::byte> seen(mine.size(), std::byte{1});
  copy_bytes(seen.data(), Device{}, mine.data(), device, seen.size());
  CHECK(std::all_of(seen.begin(), seen.end(), [](std::byte b) { return b == std::byte{0}; }));

  kernels::Kernel<TicketArgs> probe("probe");
  probe.add(device.type, {"ticket", nullptr, nullptr, [](const TicketArgs& args, Stream) { handed = args.zeroed; }});
  launch(probe, {}, device);
  CHECK(handed.data() == mine.data());
  CHECK(handed.size() == kZeroedBytes);

  if (device.type == DeviceType::cpu) return;  // it has one stream
  const OwnStream other(device);
  CHECK(zeroed_workspace(other).data() != mine.data());
  {
    const StreamGuard on(other);
    launch(probe, {}, device);
  }
  CHECK(handed.data() == zeroed_workspace(other).data());

  // A graph knows the workspace that its stream had before.
  const OwnStream captured(device);
  CHECK_THROWS_WITH(Graph::capture(captured, [&] { zeroed_workspace(captured); }), Catch::Contains("run the work once before"));
  const std::span<std::byte> before = zeroed_workspace(captured);
  const Graph graph = Graph::capture(captured, [&] { CHECK(zeroed_workspace(captured).data() == before.data()); });
}

}  // namespace
}  // namespace heddle
