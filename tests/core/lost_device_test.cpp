// A kernel that faults: what the host is told at the next call that waits. A program of its own, since the device is lost.
#include "core/device_cuda.h"
#include "core/launch.h"
#include "kernels/api/pointwise.h"
#include "kernels/sim/cudart/cudart.h"
#include "tests/core/device_support.h"

namespace heddle {
namespace {

TEST_CASE("who watches a wait may end it, and is asked no more once gone") {
  for (const Device device : test::cuda_devices()) {
    if (!runtime(device.type).simulated()) continue;
    int done = 0, asked = 0;
    const auto queue_work = [&] {
      for (int i = 0; i < 100; ++i)
        sim::launch_on_host(
            "work", [&] { ++done; }, current_stream(device).native);
    };
    queue_work();
    {
      const WaitWatch watch([&] {
        ++asked;
        fail("watch", "the others are gone");
      });
      CHECK_THROWS_WITH(synchronize(device), Catch::Contains("the others are gone"));
      Event event(device);
      event.record(current_stream(device));
      CHECK_THROWS_WITH(event.synchronize(), Catch::Contains("the others are gone"));
    }
    CHECK(asked == 2);
    CHECK(done < 100);
    synchronize(device);
    CHECK(done == 100);
    {
      const WaitWatch quiet([&] { ++asked; });
      queue_work();
      synchronize(device);
    }
    CHECK(done == 200);
    CHECK(asked > 2);
  }
}

TEST_CASE("an error of a GPU names the ops that were queued last, the newest first") {
  CHECK(queued_ops_text() == "");
  for (const Device device : test::cuda_devices()) {
    if (!runtime(device.type).simulated()) continue;
    const Tensor x = Tensor::full({4, 8}, 1, DType::f32, device), y = Tensor::full({4, 8}, 1, DType::f32, device);
    launch(kernels::multiply, {.a = x.view(), .b = x.view(), .out = {y.view()}}, device);
    launch(kernels::axpby, {.a = x.view(), .b = {}, .out = {y.view()}}, device);
    sim::launch_on_host(
        "broken", [] { fail("broken", "planted"); }, current_stream(device).native);
    CHECK_THROWS_WITH(synchronize(device), Catch::Contains("ops queued last, the newest first: axpby, multiply") && Catch::Contains("planted") &&
                                               Catch::Contains("CUDA_LAUNCH_BLOCKING=1"));
  }
}

}  // namespace
}  // namespace heddle
