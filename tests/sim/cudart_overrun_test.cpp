// Overruns of simulated device memory by less than its 256-byte units, which no guard page can see: AddressSanitizer's part.
#include <functional>
#include <string>
#include <vector>

#include "tests/sim/cudart_kernels.h"
#include "tests/sim/cudart_support.h"
#include "tests/sim/in_child.h"

namespace heddle::test {
namespace {

// What an act in a child process says when it dies, empty if it ends well.
std::string complaint(const std::function<void()>& act) {
  const ChildEnd end = in_child(act);
  return end.status == 0 ? std::string() : "died: " + end.text;
}

sim::RuntimeOptions at_once() {
  sim::RuntimeOptions options;
  options.order = sim::StreamOrder::immediate;
  options.memory = size_t{64} << 20;
  return options;
}

float* pool_array(size_t n) {
  void* data = nullptr;
  ok(cudaMallocAsync(&data, n * sizeof(float), nullptr));
  return static_cast<float*>(data);
}

TEST_CASE("one element past the end of device memory, or before its start, is found") {
  const FreshRuntime fresh(at_once());
  for (const bool pool : {false, true})
    for (const size_t n : {1, 2, 3, 64, 65, 300, 1000, 1024, 1025, 5000}) {
      CAPTURE(pool, n);
      float* const x = pool ? pool_array(n) : device_array(n);
      const std::string inside = complaint([&] {
        for (const size_t i : {size_t{0}, n / 2, n - 1}) touch(x, i, nullptr);
      });
      CHECK(inside.empty());
      const bool guard_page = n * sizeof(float) % 256 == 0;  // follows at once
      const std::string behind = complaint([&] { touch(x, n, nullptr); });
      INFO(behind);
      CHECK(behind.find(guard_page ? "outside an allocation" : "use-after-poison") != std::string::npos);
      CHECK(behind.find("touch_kernel") != std::string::npos);
      if (reinterpret_cast<uintptr_t>(x) % 4096 == 0) continue;
      const std::string before = complaint([&] { touch(x - 1, 0, nullptr); });
      INFO(before);
      CHECK(before.find("use-after-poison") != std::string::npos);
    }
}

// Every byte of [data, +bytes) may be touched, by AddressSanitizer's account.
extern "C" void* __asan_region_is_poisoned(void* data, size_t bytes);

TEST_CASE("memory that is given back is nobody's poison") {
  float *x = nullptr, *y = nullptr;
  const auto clean = [](void* data) { return __asan_region_is_poisoned(data, 256) == nullptr; };
  sim::reset_runtime(at_once());
  x = device_array(3);
  y = pool_array(3);
  CHECK((!clean(x) && !clean(y)));
  ok(cudaFree(x));
  ok(cudaFreeAsync(y, nullptr));
  ok(cudaDeviceSynchronize());
  CHECK((clean(x) && clean(y)));
  x = device_array(3);
  sim::reset_runtime(at_once());
  CHECK(clean(x));
  x = device_array(3);
  ok(cudaDeviceReset());
  CHECK(clean(x));
  sim::reset_runtime(sim::RuntimeOptions{});
}

}  // namespace
}  // namespace heddle::test
