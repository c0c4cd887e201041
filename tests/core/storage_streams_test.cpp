// The allocator where several streams use a block. On a simulated device ctest runs this program in several stream orders.
#include "core/storage.h"

#include <thread>

#include "kernels/api/check.h"
#include "tests/core/device_support.h"
#include "tests/support/gradcheck.h"

namespace heddle {
namespace {

using test::fill, test::filled, test::scale, test::value_of;

constexpr int kTrials = 20;  // in random order
constexpr int64_t kCount = 100000;

struct Reuse {
  double seen = 0;    // by the side stream
  bool same = false;  // the block was given again
  uint64_t waits = 0;
};

// A block is read on a side stream, freed, and asked for again by its own stream, which writes it.
Reuse reuse(Device device, bool record) {
  const Stream main = current_stream(device);
  const OwnStream side(device);
  const Tensor copy = filled(0, device, kCount);
  release_cached(device);
  Tensor x = filled(7, device, kCount);
  Event made(device);
  made.record(main);
  made.wait(side);
  scale(copy, x, 1, side);
  if (record) record_use(*x.storage(), side);
  const void* const address = x.impl().data;
  Reuse result;
  const uint64_t before = runtime(device.type).host_synchronisations();
  x = Tensor();
  const Tensor y = Tensor::empty({kCount}, DType::f32, device);
  result.same = y.impl().data == address;
  fill(y, 1, main);
  result.waits = runtime(device.type).host_synchronisations() - before;
  runtime(device.type).synchronize(side);
  result.seen = value_of(copy);
  CHECK(value_of(y) == 1);
  return result;
}

TEST_CASE("a block that another stream uses is given again behind its work, and the host does not wait") {
  for (const Device device : test::cuda_devices()) {
    int wrong = 0;
    for (int i = 0; i < kTrials; ++i) {
      const Reuse right = reuse(device, true);
      CHECK(right.seen == 7);
      CHECK(right.same);  // no memory is lost to the delay
      CHECK(right.waits == 0);
      wrong += reuse(device, false).seen != 7;
    }
    if (test::random_order()) CHECK(wrong > 0);  // the forgotten record_use shows
  }
}

TEST_CASE("among cached blocks one that nobody works on any more comes first") {
  for (const Device device : test::cuda_devices()) {
    const Stream main = current_stream(device);
    const OwnStream side(device);
    release_cached(device);
    auto busy = allocate(device, 1 << 20, MemoryTag::workspace, main), idle = allocate(device, 1 << 20, MemoryTag::workspace, main);
    const std::byte *const of_busy = busy->data(), *const of_idle = idle->data();
    const Tensor x = filled(1, device, kCount);
    synchronize(device);
    for (int i = 0; i < 50; ++i) scale(x, x, 1, side);
    record_use(*busy, side);
    record_use(*busy, side);
    record_use(*busy, main);  // its own
    busy.reset();
    idle.reset();
    const auto first = allocate(device, 1 << 20, MemoryTag::workspace, main), second = allocate(device, 1 << 20, MemoryTag::workspace, main);
    CHECK((first->data() == of_idle || first->data() == of_busy));
    if (test::random_order()) CHECK(first->data() == of_idle);
    CHECK(first->data() != second->data());
    runtime(device.type).synchronize(side);
  }
}

TEST_CASE("blocks that another stream still uses go back to the device when memory is short") {
  for (const Device device : test::cuda_devices()) {
    const OwnStream side(device);
    const Tensor x = filled(3, device, kCount);
    synchronize(device);
    {
      const Tensor y = Tensor::empty({kCount}, DType::f32, device);
      scale(y, x, 1, side);
      record_use(*y.storage(), side);
    }
    release_cached(device);
    CHECK(memory_stats(device).reserved == memory_stats(device).live_total);
  }
}

TEST_CASE("out of memory on a device: what is cached is given back first, then the error says where memory went") {
  for (const Device device : test::cuda_devices()) {
    release_cached(device);
    const size_t most = runtime(device.type).memory_limit(device.index);
    if (most > size_t{4} << 30) continue;
    const size_t half = most / 2;
    allocate(device, half, MemoryTag::workspace, current_stream(device)).reset();
    const OwnStream other(device);
    { const auto elsewhere = allocate(device, half + most / 4, MemoryTag::activation, other); }  // needs the cached half of the main stream
    try {
      allocate(device, 2 * most, MemoryTag::activation, current_stream(device));
      FAIL("no error");
    } catch (const Error& e) {
      CHECK(e.code() == ExitCode::out_of_memory);
      CHECK_THAT(e.what(), Catch::Matchers::Contains("cuda:0: no memory for") && Catch::Matchers::Contains("--batch"));
    }
    release_cached(device);
  }
}

TEST_CASE("poisoned memory is NaN on every device, used blocks included") {
  kernels::register_cpu_kernels();
  for (const Device device : test::devices()) {
    { const Tensor used = filled(1, device); }
    const test::Poisoned poisoned;
    for (const double v : Tensor::empty({1000}, DType::f32, device).to_vector()) CHECK(std::isnan(v));
  }
}

TEST_CASE("threads with streams of their own may allocate and free at the same time") {
  for (const Device device : test::devices()) {
    const size_t live = memory_stats(device).live_total;
    std::vector<std::thread> threads;
    std::array<double, 4> seen{};
    for (size_t t = 0; t < seen.size(); ++t) {
      threads.emplace_back([&, t] {
        const OwnStream own(device);
        const StreamGuard guard(own);
        const Tensor sum = filled(0, device);
        for (int i = 0; i < 20; ++i) {
          const Tensor x = filled(static_cast<double>(t), device);
          launch(kernels::axpby, {.a = x.view(), .out = {sum.view(), true}}, device);
        }
        seen[t] = value_of(sum);
      });
    }
    for (std::thread& t : threads) t.join();
    CHECK(seen == std::array<double, 4>{0, 20, 40, 60});
    CHECK(memory_stats(device).live_total == live);
  }
}

}  // namespace
}  // namespace heddle
