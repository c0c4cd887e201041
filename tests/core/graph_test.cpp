// Capture: what is recorded, what memory it keeps, and what it may not do. On a simulated device ctest runs this program in several stream orders.
#include "core/graph.h"

#include "kernels/api/check.h"
#include "tests/core/device_support.h"

namespace heddle {
namespace {

using Catch::Matchers::Contains;
using test::fill, test::filled, test::scale, test::value_of;

constexpr int64_t kCount = 100000;

// y = 6 x, by way of temporaries, one of them on a stream that joins.
void six_times(const Tensor& x, const Tensor& y, Stream main, Stream side) {
  Event forked(x.device()), joined(x.device());
  const Tensor doubled = Tensor::empty({kCount}, DType::f32, x.device());
  scale(doubled, x, 2, main);
  forked.record(main);
  forked.wait(side);
  Tensor tripled = Tensor::empty({kCount}, DType::f32, x.device());
  scale(tripled, doubled, 3, side);
  record_use(*tripled.storage(), side);
  joined.record(side);
  joined.wait(main);
  scale(y, tripled, 1, main);
}

TEST_CASE("the CPU records nothing and says so") {
  CHECK_THROWS_WITH(Graph::capture(current_stream(Device{}), [] {}), Contains("the CPU runs work at once"));
}

TEST_CASE("a captured step runs when it is launched, with what its arguments point to then") {
  for (const Device device : test::cuda_devices()) {
    const OwnStream side(device);
    const Stream main = current_stream(device);
    const Tensor x = filled(1, device, kCount), y = filled(0, device, kCount);
    synchronize(device);
    const uint64_t waits = runtime(device.type).host_synchronisations();
    const Graph graph = Graph::capture(main, [&] { six_times(x, y, main, side); });
    CHECK(runtime(device.type).host_synchronisations() == waits);
    CHECK(value_of(y) == 0);  // nothing of it has run
    for (const double value : {1.0, 2.0, 5.0}) {
      fill(x, value, main);
      graph.launch();
      const Tensor elsewhere = filled(-1, device, kCount);  // eager work between launches does not meet the graph's memory
      CHECK(value_of(y) == 6 * value);
      CHECK(value_of(elsewhere) == -1);
    }
  }
}

TEST_CASE("graphs share one pool, eager work never touches it, and it goes with the last graph") {
  for (const Device device : test::cuda_devices()) {
    const OwnStream side(device);
    const Stream main = current_stream(device);
    const Tensor x = filled(1, device, kCount), y = filled(0, device, kCount), z = filled(0, device, kCount);
    synchronize(device);
    release_cached(device);
    const size_t before = memory_stats(device).reserved;
    {
      const Graph first = Graph::capture(main, [&] { six_times(x, y, main, side); });
      const size_t with_one = memory_stats(device).reserved;
      CHECK(with_one > before);
      const Graph second = Graph::capture(main, [&] { six_times(y, z, main, side); });
      CHECK(memory_stats(device).reserved == with_one);
      const Tensor eager = filled(3, device, kCount);  // memory of its own
      CHECK(memory_stats(device).reserved > with_one);
      const uint64_t asked = memory_stats(device).device_allocations;
      for (int i = 1; i <= 3; ++i) {
        fill(x, i, main);
        first.launch();
        second.launch();
      }
      CHECK(value_of(z) == 108);
      CHECK(value_of(eager) == 3);
      CHECK(memory_stats(device).device_allocations == asked);
    }
    release_cached(device);
    CHECK(memory_stats(device).reserved == before);
  }
}

TEST_CASE("a tensor from outside that is freed in a capture stays the graph's") {
  for (const Device device : test::cuda_devices()) {
    const Stream main = current_stream(device);
    synchronize(device);
    release_cached(device);  // so that the next one could only be x's block
    Tensor x = filled(4, device, kCount);
    const Tensor y = filled(0, device, kCount);
    synchronize(device);
    const void* const address = x.impl().data;
    const Graph graph = Graph::capture(main, [&] {
      scale(y, x, 2, main);
      x = Tensor();
    });
    const Tensor other = filled(9, device, kCount);
    CHECK(other.impl().data != address);
    graph.launch();
    CHECK(value_of(y) == 8);
  }
}

TEST_CASE("a block that a captured stream still reads is not written by another one of the capture") {
  for (const Device device : test::cuda_devices()) {
    const OwnStream side(device);
    const Stream main = current_stream(device);
    const Tensor x = filled(5, device, kCount), y = filled(0, device, kCount);
    synchronize(device);
    const Graph graph = Graph::capture(main, [&] {
      Event forked(device), joined(device);
      Tensor read = Tensor::empty({kCount}, DType::f32, device);
      scale(read, x, 2, main);
      forked.record(main);
      forked.wait(side);
      scale(y, read, 1, side);
      record_use(*read.storage(), side);
      read = Tensor();
      const Tensor written = Tensor::empty({kCount}, DType::f32, device);
      fill(written, -1, main);
      joined.record(side);
      joined.wait(main);
    });
    for (int i = 0; i < 20; ++i) {
      graph.launch();
      CHECK(value_of(y) == 10);
    }
  }
}

TEST_CASE("a tensor made in a capture and freed after it is the graphs' again") {
  for (const Device device : test::cuda_devices()) {
    const OwnStream side(device);
    const Stream main = current_stream(device);
    const Tensor x = filled(1, device, kCount), y = filled(0, device, kCount);
    synchronize(device);
    Tensor result;
    const Graph first = Graph::capture(main, [&] {
      result = Tensor::empty({kCount}, DType::f32, device);
      scale(result, x, 3, main);
    });
    first.launch();
    CHECK(value_of(result) == 3);
    const void* const address = result.impl().data;
    scale(y, result, 1, side);
    record_use(*result.storage(), side);
    result = Tensor();
    const Tensor eager = Tensor::empty({kCount}, DType::f32, device);
    CHECK(eager.impl().data != address);
    runtime(device.type).synchronize(side);
    const Graph second = Graph::capture(main, [&] {
      const Tensor inside = Tensor::empty({kCount}, DType::f32, device);
      CHECK(inside.impl().data == address);
      scale(inside, x, 5, main);
    });
    CHECK(value_of(y) == 3);
  }
}

TEST_CASE("a capture that fails leaves stream and memory as they were") {
  for (const Device device : test::cuda_devices()) {
    const Stream main = current_stream(device);
    const Tensor x = filled(1, device, kCount);
    synchronize(device);
    release_cached(device);
    const size_t before = memory_stats(device).reserved;
    const auto failing = [&](const std::function<void()>& act) {
      return [&, act] {
        Graph::capture(main, [&] {
          const Tensor temporary = Tensor::empty({kCount}, DType::f32, device);
          scale(temporary, x, 2, main);
          act();
        });
      };
    };
    CHECK_THROWS_WITH(failing([] { fail("test", "wanted"); })(), Contains("wanted"));
    CHECK_THROWS_WITH(failing([&] { synchronize(device); })(), Contains("cudaStreamSynchronize"));
    CHECK_THROWS_WITH(failing([&] { static_cast<void>(x.to_vector()); })(), Contains("cuda"));
    const OwnStream other(device);
    CHECK_THROWS_WITH(failing([&] { Graph::capture(other, [] {}); })(), Contains("two captures at once"));
    CHECK_FALSE(runtime(device.type).capturing(main));
    CHECK_FALSE(runtime(device.type).capturing(other));
    CHECK(memory_stats(device).reserved == before);
    scale(x, x, 2, main);
    CHECK(value_of(x) == 2);
  }
}

}  // namespace
}  // namespace heddle
