// Saves of a state in device memory: the host queues them and goes on, and what comes later on the device does not reach them.
#include "infer/device_state.h"

#include "parallel/control.h"
#include "tests/checkpoint/tiny_state.h"
#include "tests/core/device_support.h"

namespace heddle {
namespace {

using test::ScratchDirectory;

struct DeviceState {
  explicit DeviceState(Device device) : a(test::filled(0, device, 5000)), b(test::filled(0, device, 3)) {
    dict.scalars = "{}";
    for (const auto& [name, tensor] : {std::pair{"model.a", &a}, {"optim.b", &b}})
      dict.tensors.push_back({.name = name, .data = tensor->view(), .global = {tensor->numel()}, .box = {Range{0, tensor->numel()}}});
  }
  void become(double value, Stream stream) const {
    test::fill(a, value, stream);
    test::fill(b, -value, stream);
  }
  Tensor a, b;
  StateDict dict;
};

TEST_CASE("a save of device memory holds what the device's stream had come to, and the training thread waits for nothing") {
  for (const Device device : test::cuda_devices()) {
    const ScratchDirectory run("device-state");
    const auto alone = local_control();
    CheckpointOptions options = test::quiet_options();
    options.keep_last = 100;
    options.copy_in = copy_into(device);
    options.copy_out = copy_out_of(device);
    options.queued_copies = queued_copies(device);
    Checkpoints checkpoints(run.path(), *alone, options);
    checkpoints.find_newest();
    const DeviceState state(device);
    checkpoints.prepare(state.dict);
    const Stream stream = current_stream(device);
    constexpr uint64_t kSteps = 20;
    for (uint64_t step = 1; step <= kSteps; ++step) {
      state.become(static_cast<double>(step), stream);
      checkpoints.wait();  // save() itself would wait for the save before
      const uint64_t before = runtime(device.type).host_synchronisations();
      checkpoints.save(step, state.dict, "");
      // The writing thread's wait is counted as well, once.
      CHECK(runtime(device.type).host_synchronisations() <= before + 1);
      state.become(1e6, stream);  // the save is not touched by it
    }
    checkpoints.wait();
    CHECK(checkpoints.stats().committed == kSteps);
    for (uint64_t step = 1; step <= kSteps; ++step) {
      DeviceState loaded(Device{});
      read_checkpoint((run / ("ckpt/s" + std::to_string(step) + "-i1")).string(), loaded.dict);
      CHECK(test::value_of(loaded.a) == static_cast<double>(step));
      CHECK(test::value_of(loaded.b) == -static_cast<double>(step));
    }
  }
}

}  // namespace
}  // namespace heddle
