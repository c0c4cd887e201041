// What a device has: a candidate of its own for every contract.
#include <algorithm>

#include "kernels/api/slots.h"
#include "tests/kernels/kernel_case.h"

namespace heddle::kernels {
namespace {

// Candidates of the device, slot by slot. On a simulated GPU the CPU's kernels may stand behind them (register_host_kernels): those are not its own.
std::vector<std::pair<std::string_view, size_t>> census() {
  std::vector<std::pair<std::string_view, size_t>> counts;
  for_each_kernel([&](const auto& kernel) {
    const auto& all = kernel.candidates(test::kDevice);
    const auto own = std::count_if(all.begin(), all.end(), [](const auto& c) { return test::kDevice == DeviceType::cpu || c.name != "host"; });
    counts.emplace_back(kernel.op(), static_cast<size_t>(own));
  });
  return counts;
}

TEST_CASE("registry: every contract has a candidate of the device's own, and registering again adds none", "[registry]") {
  test::register_kernels();
  const auto counts = census();
  for (const auto& [op, own] : counts) {
    INFO(op);
    CHECK(own > 0);
  }
  test::register_kernels();
  CHECK(census() == counts);
}

}  // namespace
}  // namespace heddle::kernels
