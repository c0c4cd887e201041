// Streams, events, pinned memory and what the host waits for. On a simulated device ctest runs this program in several stream orders.
#include "core/device.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <set>
#include <thread>

#include "core/staging.h"
#include "kernels/api/check.h"
#include "tests/core/device_support.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;
using test::fill, test::filled, test::scale, test::value_of;

constexpr int kTrials = 20;  // in random order

TEST_CASE("what the CPU does at once") {
  const Stream stream = current_stream(Device{});
  CHECK(stream.device == Device{});
  Event event;
  event.record(stream);
  event.wait(stream);
  event.synchronize();
  CHECK(event.reached());
  Event moved = std::move(event);
  moved.synchronize();
  int marker = 0;
  {
    const StreamGuard guard(Stream{Device{}, &marker});
    CHECK(current_stream(Device{}).native == &marker);
  }
  CHECK(current_stream(Device{}).native == nullptr);
  CHECK_FALSE(has_device(Device{DeviceType::cpu, 1}));
  CHECK_FALSE(has_device(Device{DeviceType::cpu, -1}));
}

TEST_CASE("a CUDA device has a stream of its own, the same in every thread, until a guard changes it") {
  for (const Device device : test::cuda_devices()) {
    const Stream main = current_stream(device);
    CHECK(main.device == device);
    CHECK(main.native != nullptr);  // not the legacy stream, which waits for others
    void* elsewhere = nullptr;
    std::thread([&] { elsewhere = current_stream(device).native; }).join();
    CHECK(elsewhere == main.native);
    const OwnStream own(device);
    CHECK(Stream(own).native != main.native);
    {
      const StreamGuard guard(own);
      CHECK(current_stream(device).native == Stream(own).native);
      CHECK(current_stream(Device{}).native == nullptr);
    }
    CHECK(current_stream(device).native == main.native);
    CHECK_THROWS_WITH(current_stream(Device{DeviceType::cuda, 64}), Contains("cuda:64"));
  }
}

TEST_CASE("streams that live are all different, and one that was released serves again, after its own work") {
  for (const Device device : test::cuda_devices()) {
    for (const StreamPriority priority : {StreamPriority::normal, StreamPriority::high}) {
      void* released = nullptr;
      const Tensor x = filled(1, device);
      synchronize(device);
      {
        const OwnStream a(device, priority), b(device, priority);
        CHECK(Stream(a).native != Stream(b).native);
        released = Stream(a).native;
        for (int i = 0; i < 5; ++i) scale(x, x, 2, a);
      }
      const OwnStream again(device, priority);
      CHECK(Stream(again).native == released);
      scale(x, x, 10, again);
      runtime(device.type).synchronize(again);
      CHECK(value_of(x) == 320);
    }
  }
}

// A value is made on one stream and copied on another.
double hand_over(Device device, bool with_event) {
  const OwnStream producer(device), consumer(device);
  const Tensor x = filled(1, device), y = filled(0, device);
  synchronize(device);
  scale(x, x, 5, producer);
  scale(x, x, 4, producer);
  Event made(device);
  made.record(producer);
  if (with_event) made.wait(consumer);
  scale(y, x, 1, consumer);
  runtime(device.type).synchronize(consumer);
  runtime(device.type).synchronize(producer);
  return value_of(y);
}

TEST_CASE("an event orders two streams; a forgotten one shows") {
  for (const Device device : test::cuda_devices()) {
    int wrong = 0;
    for (int i = 0; i < kTrials; ++i) {
      CHECK(hand_over(device, true) == 20);
      wrong += hand_over(device, false) != 20;
    }
    if (test::random_order()) CHECK(wrong > 0);
  }
}

TEST_CASE("an event: reached before its first record, and once its work is done") {
  for (const Device device : test::devices()) {
    Event event(device);
    CHECK(event.reached());
    const Tensor x = filled(1, device);
    event.record(current_stream(device));
    event.synchronize();
    CHECK(event.reached());
  }
}

TEST_CASE("every wait of the host is counted, and nothing else is") {
  for (const Device device : test::devices()) {
    Runtime& rt = runtime(device.type);
    const Tensor x = filled(1, device), y = filled(2, device);
    const Stream stream = current_stream(device);
    Event event(device);
    const PinnedMemory host(device, 4000);
    std::memset(host.data(), 0, host.bytes());
    synchronize(device);

    uint64_t before = rt.host_synchronisations();
    scale(x, y, 3, stream);
    event.record(stream);
    event.wait(stream);
    event.reached();
    copy_async(x.impl().data, device, host.data(), Device{}, 4000, stream);
    copy_bytes(y.impl().data, device, x.impl().data, device, 4000);
    const auto block = allocate(device, 1 << 20, MemoryTag::workspace, stream);
    CHECK(rt.host_synchronisations() == before);
    synchronize(device);
    CHECK(rt.host_synchronisations() == before + 1);
    event.synchronize();
    CHECK(rt.host_synchronisations() == before + 2);
    rt.synchronize_device(device.index);
    CHECK(rt.host_synchronisations() == before + 3);
    float value = 1;
    before = rt.host_synchronisations();
    copy_bytes(&value, Device{}, y.impl().data, device, sizeof value);
    CHECK(value == 0);
    CHECK(rt.host_synchronisations() == before + (device.type == DeviceType::cuda));
    copy_bytes(nullptr, Device{}, nullptr, device, 0);  // an empty tensor's
    CHECK(rt.host_synchronisations() == before + (device.type == DeviceType::cuda));
  }
}

TEST_CASE("pinned memory: many copies up and down in one stream's order") {
  for (const Device device : test::devices()) {
    const Stream stream = current_stream(device);
    constexpr int64_t kCount = 5000;
    const size_t bytes = kCount * sizeof(float);
    PinnedMemory up(device, bytes), down(device, bytes);
    auto* const in = reinterpret_cast<float*>(up.data());
    for (int64_t i = 0; i < kCount; ++i) in[i] = static_cast<float>(i);
    const Tensor x = filled(0, device, kCount);
    copy_async(x.impl().data, device, up.data(), Device{}, bytes, stream);
    scale(x, x, 2, stream);
    copy_async(down.data(), Device{}, x.impl().data, device, bytes, stream);
    synchronize(device);
    CHECK(reinterpret_cast<const float*>(down.data())[kCount - 1] == 2 * (kCount - 1));
    PinnedMemory moved = std::move(up);
    CHECK(up.data() == nullptr);
    CHECK(moved.bytes() == bytes);
  }
}

// Sums i for i < sends, each brought up through the staging's slots.
double staged_sum(Device device, Staging& staging, int sends) {
  const Stream stream = current_stream(device);
  const Tensor x = filled(0, device), sum = filled(0, device);
  for (int i = 0; i < sends; ++i) {
    auto* const values = reinterpret_cast<float*>(staging.next().data());
    std::fill(values, values + x.numel(), static_cast<float>(i));
    staging.send(x.impl().data, stream);
    launch(kernels::axpby, {.a = x.view(), .out = {sum.view(), true}}, device);
  }
  return value_of(sum);
}

TEST_CASE("staging: a slot is filled again only when its copy has run; with one more slot than sends in flight the host never waits") {
  for (const Device device : test::devices()) {
    for (const int slots : {1, 2, 3}) {
      Staging staging(device, 4000, slots);
      CHECK(staged_sum(device, staging, 20) == 190);
    }
    Staging staging(device, 4000, 4);
    std::byte* const slot = staging.next().data();
    for (int i = 1; i < 4; ++i) CHECK(staging.next().data() != slot);
    CHECK(staging.next().data() == slot);  // as many as it was asked for
    const uint64_t before = runtime(device.type).host_synchronisations();
    for (int i = 0; i < 4; ++i) {
      std::memset(staging.next().data(), 0, 4000);
      const Tensor x = Tensor::empty({1000}, DType::f32, device);
      staging.send(x.impl().data, current_stream(device), 400);
    }
    CHECK(runtime(device.type).host_synchronisations() == before);
  }
}

// What the program says in a child process, whose device may be lost.
std::string said_by_child(void (*act)(Device), Device device) {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    std::string text = "nothing";
    try {
      act(device);
    } catch (const Error& e) {
      text = e.what();
    }
    _exit(write(ends[1], text.data(), text.size()) < 0);
  }
  close(ends[1]);
  std::string text;
  char part[512];
  for (ssize_t n; (n = read(ends[0], part, sizeof part)) > 0;) text.append(part, static_cast<size_t>(n));
  close(ends[0]);
  waitpid(child, nullptr, 0);
  return text;
}

TEST_CASE("a pinned buffer that is filled again while its copy is queued is reported by a simulated device") {
  for (const Device device : test::cuda_devices()) {
    if (!test::random_order()) continue;
    const std::string text = said_by_child(
        [](Device d) {
          const auto target = allocate(d, 4000, MemoryTag::workspace, current_stream(d));
          const PinnedMemory host(d, 4000);
          for (int i = 0; i < 3; ++i) {
            std::memset(host.data(), i, host.bytes());
            copy_async(target->data(), d, host.data(), Device{}, host.bytes(), current_stream(d));
          }
          synchronize(d);
        },
        device);
    CHECK_THAT(text, Contains("cudaStreamSynchronize") && Contains("race with the host on the source") && Contains("pinned host memory"));
  }
}

TEST_CASE("a failure of a device names the call") {
  for (const Device device : test::cuda_devices()) {
    if (!runtime(device.type).simulated()) continue;  // a real driver need not notice
    const std::string text = said_by_child(
        [](Device d) {
          std::byte here[16];
          const auto block = allocate(d, 16, MemoryTag::workspace, current_stream(d));
          copy_bytes(here, Device{}, block->data(), d, 4096);
        },
        device);
    CHECK_THAT(text, Contains("[cuda] cudaMemcpyAsync: invalid argument"));
  }
}

TEST_CASE("a device says what it is") {
  CHECK(runtime(DeviceType::cpu).describe(0) == "the CPU");
  for (const Device device : test::cuda_devices()) {
    CHECK_THAT(runtime(device.type).describe(device.index), Contains("sm_") && Contains("multiprocessors") && Contains("GiB"));
    CHECK(runtime(device.type).memory_limit(device.index) > (1 << 20));
  }
}

// In a process of its own, by ctest with HEDDLE_SIM_DEVICES=0.
TEST_CASE("without a device", "[.no-device]") {
  CHECK_FALSE(has_device(Device{DeviceType::cuda, 0}));
  CHECK(test::devices() == std::vector<Device>{Device{}});
  try {
    runtime(DeviceType::cuda);
    FAIL("no error");
  } catch (const Error& e) {
    CHECK(e.code() == ExitCode::no_device);
    CHECK_THAT(e.what(), Contains("GPU"));
  }
}

}  // namespace
}  // namespace heddle
