// The caching allocator.
#include "core/storage.h"

#include <cmath>
#include <thread>

#include "core/tensor.h"
#include "kernels/api/check.h"
#include "tests/support/devices.h"
#include "tests/support/gradcheck.h"

#if defined(__has_feature)
#define HEDDLE_HAS_FEATURE(x) __has_feature(x)
#else
#define HEDDLE_HAS_FEATURE(x) 0
#endif

namespace heddle {
namespace {

std::shared_ptr<Storage> take(Device device, size_t bytes, MemoryTag tag = MemoryTag::workspace) {
  return allocate(device, bytes, tag, current_stream(device));
}

TEST_CASE("a freed block serves the next request of about its size") {
  for (Device device : test::devices()) {
    auto a = take(device, 1 << 20);
    std::byte* const data = a->data();
    const uint64_t asked = memory_stats(device).device_allocations;
    a.reset();
    CHECK(take(device, (1 << 20) - 5000)->data() == data);
    CHECK(take(device, 1 << 20)->data() == data);
    CHECK(memory_stats(device).device_allocations == asked);
    take(device, 1 << 10);  // far too small for it: a megabyte is not spent on a kilobyte
    CHECK(take(device, 1 << 20)->data() == data);
  }
}

TEST_CASE("a block in use is never given twice") {
  std::vector<std::shared_ptr<Storage>> all;
  for (int i = 0; i < 50; ++i) all.push_back(take(Device{}, 3000));
  for (size_t i = 0; i < all.size(); ++i) {
    for (size_t j = 0; j < i; ++j) CHECK(std::abs(all[i]->data() - all[j]->data()) >= 3000);
  }
}

TEST_CASE("blocks are aligned, also those of no bytes") {
  for (size_t bytes : {size_t{0}, size_t{1}, size_t{63}, size_t{100000}, size_t{5} << 20}) {
    const auto s = take(Device{}, bytes);
    REQUIRE(s->data() != nullptr);
    CHECK(reinterpret_cast<uintptr_t>(s->data()) % 64 == 0);
    CHECK(s->bytes() == bytes);
  }
}

TEST_CASE("live and peak bytes are counted by tag") {
  const Device device{};
  const auto tag = [](MemoryTag t) { return static_cast<size_t>(t); };
  reset_peaks(device);
  const MemoryStats before = memory_stats(device);
  {
    const auto a = take(device, 1 << 16, MemoryTag::activation);
    const auto b = take(device, 1 << 17, MemoryTag::optimizer);
    const MemoryStats during = memory_stats(device);
    CHECK(during.live[tag(MemoryTag::activation)] == before.live[tag(MemoryTag::activation)] + (1 << 16));
    CHECK(during.live[tag(MemoryTag::optimizer)] == before.live[tag(MemoryTag::optimizer)] + (1 << 17));
    CHECK(during.live_total == before.live_total + (1 << 16) + (1 << 17));
  }
  const MemoryStats after = memory_stats(device);
  CHECK(after.live == before.live);
  CHECK(after.live_total == before.live_total);
  CHECK(after.peak[tag(MemoryTag::optimizer)] == before.live[tag(MemoryTag::optimizer)] + (1 << 17));
  CHECK(after.peak_total == before.live_total + (1 << 16) + (1 << 17));
  reset_peaks(device);
  CHECK(memory_stats(device).peak == before.live);
  CHECK(memory_report(device).find("optimizer") != std::string::npos);
}

TEST_CASE("cached blocks go back to the device on request") {
  const Device device{};
  take(device, 9 << 20);
  const size_t reserved = memory_stats(device).reserved;
  release_cached(device);
  CHECK(memory_stats(device).reserved + (9 << 20) <= reserved);
  CHECK(memory_stats(device).reserved >= memory_stats(device).live_total);
}

TEST_CASE("a size is rounded up by at most an eighth") {
  const Device device{};
  for (size_t bytes : {size_t{513}, size_t{1000}, size_t{4097}, size_t{1234567}, size_t{(1 << 20) + 1}}) {
    release_cached(device);
    const size_t before = memory_stats(device).live_total;
    const auto s = take(device, bytes);
    const size_t used = memory_stats(device).live_total - before;
    CHECK(used >= bytes);
    CHECK(used <= bytes + bytes / 8 + 64);
  }
}

TEST_CASE("out of memory: the device, the size, where memory went, and what helps") {
#if defined(__SANITIZE_ADDRESS__) || HEDDLE_HAS_FEATURE(address_sanitizer)
  return;  // AddressSanitizer ends the process on absurd sizes
#endif
  const Device device{};
  take(device, 2 << 20);  // cached: given back before giving up
  try {
    take(device, size_t{1} << 56, MemoryTag::activation);
    FAIL("no error");
  } catch (const Error& e) {
    const std::string text = e.what();
    CHECK(e.code() == ExitCode::out_of_memory);
    for (const char* part :
         {"cpu", "72057594037927936 bytes of activation", "parameter", "gradient", "optimizer", "peak", "--batch", "--recompute"}) {
      CAPTURE(part);
      CHECK(text.find(part) != std::string::npos);
    }
  }
  CHECK(memory_stats(device).reserved == memory_stats(device).live_total);
}

TEST_CASE("poisoned memory is NaN in every floating dtype") {
  kernels::register_cpu_kernels();
  const test::Poisoned poisoned;
  for (DType dtype : {DType::f32, DType::bf16, DType::f64}) {
    for (double v : Tensor::empty({100}, dtype).to_vector()) CHECK(std::isnan(v));
  }
}

TEST_CASE("threads may allocate at the same time") {
  const size_t live = memory_stats(Device{}).live_total;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < 500; ++i) {
        const auto a = take(Device{}, static_cast<size_t>(1000 + 300 * (i % 7)));
        const auto b = take(Device{}, 5000);
        a->data()[0] = b->data()[0] = static_cast<std::byte>(t);
      }
    });
  }
  for (std::thread& t : threads) t.join();
  CHECK(memory_stats(Device{}).live_total == live);
}

TEST_CASE("a block of another stream is not reused: its work may not be done") {
  int marker = 0;
  const Stream other{Device{}, &marker};
  release_cached(Device{});
  std::byte* data = nullptr;
  {
    const auto s = allocate(Device{}, 1 << 21, MemoryTag::workspace, other);
    data = s->data();
  }
  const auto mine = take(Device{}, 1 << 21);
  CHECK(mine->data() != data);
  CHECK(allocate(Device{}, 1 << 21, MemoryTag::workspace, other)->data() == data);
  release_cached(Device{});
}

}  // namespace
}  // namespace heddle
