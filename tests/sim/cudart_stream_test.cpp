// Streams, events and the host: what order is promised, and that nothing else is.
#include <atomic>
#include <set>
#include <thread>

#include "kernels/api/check.h"
#include "kernels/sim/cudart/order.h"
#include "tests/sim/cudart_kernels.h"
#include "tests/sim/cudart_support.h"

namespace heddle::test {
namespace {

constexpr int kSeeds = 20;
constexpr int kCount = 300;

// A value is produced on one stream and copied on another.
float hand_over(uint64_t seed, bool with_event) {
  const FreshRuntime fresh(seed);
  const cudaStream_t producer = new_stream(), consumer = new_stream();
  const cudaEvent_t made = new_event();
  float *x = device_array(kCount), *y = device_array(kCount);
  float* host = pinned_array(kCount);
  to_device(x, std::vector<float>(kCount, 1.0f));
  add(x, kCount, 1.0f, producer);
  multiply(x, kCount, 10.0f, producer);
  ok(cudaEventRecord(made, producer));
  if (with_event) ok(cudaStreamWaitEvent(consumer, made));
  ok(cudaMemcpyAsync(y, x, kCount * sizeof(float), cudaMemcpyDeviceToDevice, consumer));
  ok(cudaMemcpyAsync(host, y, kCount * sizeof(float), cudaMemcpyDeviceToHost, consumer));
  ok(cudaStreamSynchronize(consumer));
  return host[kCount - 1];
}

TEST_CASE("a missing event is noticed in most orders, a present one holds in all") {
  int wrong = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    wrong += hand_over(seed, false) != 20.0f;
    CHECK(hand_over(seed, true) == 20.0f);
  }
  CHECK(wrong > kSeeds / 2);
}

TEST_CASE("the record says what each piece of work waits for, and a forgotten wait lets it run early") {
  int wrong = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const FreshRuntime fresh(seed);
    const cudaStream_t producer = new_stream(), consumer = new_stream();
    const cudaEvent_t made = new_event();
    float *x = device_array(kCount), *y = device_array(kCount);
    to_device(x, std::vector<float>(kCount, 1.0f));
    sim::record_work(true);
    sim::forget_wait(1);
    for (int i = 0; i < 2; ++i) {
      add(x, kCount, 1.0f, producer);
      ok(cudaEventRecord(made, producer));
      ok(cudaStreamWaitEvent(consumer, made));
      ok(cudaMemcpyAsync(y, x, kCount * sizeof(float), cudaMemcpyDeviceToDevice, consumer));
    }
    sim::record_work(false);
    CHECK(sim::waits_counted() == 2);
    sim::forget_wait(-1);
    const std::vector<sim::RecordedWork> work = sim::recorded_work();
    REQUIRE(work.size() == 7);  // add, record, wait, copy; add, record, copy
    const auto after = [&](size_t i) {
      std::vector<uint64_t> places;
      for (const uint64_t number : work[i].after) {
        if (number >= work[0].number) places.push_back(number - work[0].number);
      }
      return places;
    };
    CHECK(work[0].blocks > 0);
    CHECK(after(1) == std::vector<uint64_t>{0});
    CHECK(work[2].event == work[1].number);
    CHECK(after(2) == std::vector<uint64_t>{1});
    CHECK(after(3) == std::vector<uint64_t>{2});
    CHECK(after(6) == std::vector<uint64_t>{3});
    ok(cudaDeviceSynchronize());
    wrong += on_host(y, kCount)[0] != 3.0f;
  }
  CHECK(wrong > 0);
}

TEST_CASE("a stream keeps the order of its calls") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const FreshRuntime fresh(seed);
    const cudaStream_t stream = new_stream(), other = new_stream();
    float *x = device_array(kCount), *noise = device_array(kCount);
    ok(cudaMemsetAsync(x, 0, kCount * sizeof(float), stream));
    for (int i = 0; i < 3; ++i) {
      add(x, kCount, 1.0f, stream);
      add(noise, kCount, 1.0f, other);
      multiply(x, kCount, 2.0f, stream);
    }
    ok(cudaStreamSynchronize(stream));
    CHECK(on_host(x, kCount)[7] == 14.0f);
  }
}

// Does work in `second` see what was put into `first` before it?
bool ordered(uint64_t seed, unsigned flags, bool default_stream_first) {
  const FreshRuntime fresh(seed);
  const cudaStream_t stream = new_stream(flags);
  const cudaStream_t first = default_stream_first ? nullptr : stream, second = default_stream_first ? stream : nullptr;
  float *x = device_array(1), *y = device_array(1);
  ok(cudaMemset(x, 0, sizeof(float)));
  ok(cudaDeviceSynchronize());
  add(x, 1, 5.0f, first);
  ok(cudaMemcpyAsync(y, x, sizeof(float), cudaMemcpyDeviceToDevice, second));
  ok(cudaDeviceSynchronize());
  return on_host(y, 1)[0] == 5.0f;
}

TEST_CASE("the default stream and blocking streams wait for each other, non-blocking streams do not") {
  for (const bool default_first : {true, false}) {
    int unordered = 0;
    for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
      CHECK(ordered(seed, cudaStreamDefault, default_first));
      unordered += !ordered(seed, cudaStreamNonBlocking, default_first);
    }
    CHECK(unordered > kSeeds / 2);
  }
}

TEST_CASE("the default stream of a thread is a blocking stream of its own") {
  int apart = 0;
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const FreshRuntime fresh(seed);
    float *x = device_array(1), *y = device_array(1), *z = device_array(1);
    ok(cudaMemset(x, 0, sizeof(float)));
    ok(cudaDeviceSynchronize());
    add(x, 1, 5.0f, cudaStreamPerThread);
    std::thread([&] { ok(cudaMemcpyAsync(y, x, sizeof(float), cudaMemcpyDeviceToDevice, cudaStreamPerThread)); }).join();
    ok(cudaMemcpyAsync(z, x, sizeof(float), cudaMemcpyDeviceToDevice, cudaStreamLegacy));
    ok(cudaDeviceSynchronize());
    apart += on_host(y, 1)[0] != 5.0f;
    CHECK(on_host(z, 1)[0] == 5.0f);
  }
  CHECK(apart > kSeeds / 4);
}

TEST_CASE("a host that reads a copy's destination too early does not find the old value or the new one") {
  const FreshRuntime fresh;
  const cudaStream_t stream = new_stream();
  float* x = device_array(1);
  float* host = pinned_array(1);
  to_device(x, {3.0f});
  *host = 1.0f;
  ok(cudaMemcpyAsync(host, x, sizeof(float), cudaMemcpyDeviceToHost, stream));
  CHECK(*host < -1e30f);
  ok(cudaStreamSynchronize(stream));
  CHECK(*host == 3.0f);
}

TEST_CASE("a copy whose pageable source changes before it runs is reported by name") {
  const FreshRuntime fresh;
  const cudaStream_t stream = new_stream();
  std::vector<float> host(5000, 1.0f);
  float* x = device_array(5000);
  ok(cudaMemcpyAsync(x, host.data(), 5000 * sizeof(float), cudaMemcpyHostToDevice, stream));
  host[1024] = 2.0f;  // the first of the second 4096 bytes
  refused(cudaStreamSynchronize(stream), cudaErrorIllegalState,
          {"race with the host on the source", "pageable host memory", "changed it between byte 4096 and byte 8191",
           "copy of 20000 bytes host to device", "cudaMemcpyAsync called by", "stream 1"});
  // Nothing works after that, and the report stays.
  void* more = nullptr;
  refused(cudaMalloc(&more, 1), cudaErrorIllegalState, {"race with the host"});
  CHECK(cudaGetLastError() == cudaErrorIllegalState);
}

TEST_CASE("the same for pinned memory, and for a destination that the host writes") {
  {
    const FreshRuntime fresh;
    const cudaStream_t stream = new_stream();
    float *x = device_array(1), *host = pinned_array(1);
    *host = 1.0f;
    ok(cudaMemcpyAsync(x, host, sizeof(float), cudaMemcpyHostToDevice, stream));
    *host = 2.0f;
    refused(cudaStreamSynchronize(stream), cudaErrorIllegalState, {"source", "pinned host memory"});
  }
  {
    const FreshRuntime fresh;
    const cudaStream_t stream = new_stream();
    float *x = device_array(1), *host = pinned_array(1);
    ok(cudaMemcpyAsync(host, x, sizeof(float), cudaMemcpyDeviceToHost, stream));
    *host = 2.0f;
    refused(cudaStreamSynchronize(stream), cudaErrorIllegalState, {"destination", "pinned host memory"});
  }
}

TEST_CASE("memory that work of the stream writes itself is no race") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const FreshRuntime fresh(seed);
    const cudaStream_t stream = new_stream();
    float *x = device_array(2), *host = pinned_array(2);
    to_device(x, {3.0f, 4.0f});
    host[0] = host[1] = 0.0f;
    ok(cudaMemcpyAsync(x + 1, host, sizeof(float), cudaMemcpyHostToDevice, stream));  // reads host[0] = 0 before ...
    ok(cudaMemcpyAsync(host, x, sizeof(float), cudaMemcpyDeviceToHost, stream));      // ... this one writes 3 there
    ok(cudaLaunchHostFunc(
        stream, [](void* p) { *static_cast<float*>(p) += 1.0f; }, host));
    ok(cudaMemcpyAsync(x, host, sizeof(float), cudaMemcpyHostToDevice, stream));
    ok(cudaStreamSynchronize(stream));
    CHECK(on_host(x, 2) == std::vector<float>{4.0f, 0.0f});
  }
}

TEST_CASE("events: never recorded, done, timed") {
  const FreshRuntime fresh;
  const cudaStream_t stream = new_stream();
  const cudaEvent_t begin = new_event(cudaEventDefault), end = new_event(cudaEventDefault), untimed = new_event();
  float ms = -1.0f;
  ok(cudaEventQuery(begin));  // an event without a record counts as done
  ok(cudaEventSynchronize(begin));
  refused(cudaEventElapsedTime(&ms, begin, end), cudaErrorInvalidResourceHandle, {"event 1 was never recorded"});
  float* x = device_array(kCount);
  ok(cudaEventRecord(begin, stream));
  add(x, kCount, 1.0f, stream);
  ok(cudaEventRecord(end, stream));
  ok(cudaEventRecord(untimed, stream));
  refused(cudaEventElapsedTime(&ms, begin, end), cudaErrorNotReady);
  int asked = 0;
  while (cudaEventQuery(end) == cudaErrorNotReady && asked < 1000) ++asked;
  cudaGetLastError();
  ok(cudaEventQuery(end));
  ok(cudaEventElapsedTime(&ms, begin, end));
  CHECK((ms >= 0.0f && ms < 10000.0f));
  refused(cudaEventElapsedTime(&ms, begin, untimed), cudaErrorInvalidResourceHandle, {"cudaEventDisableTiming"});
  ok(cudaEventDestroy(end));
  refused(cudaEventRecord(end, stream), cudaErrorInvalidResourceHandle, {"is no event, or was destroyed"});
}

TEST_CASE("waiting for an event waits for its last record before the wait, not for later ones") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const FreshRuntime fresh(seed);
    const cudaStream_t a = new_stream(), b = new_stream();
    const cudaEvent_t event = new_event();
    float *x = device_array(1), *y = device_array(1);
    ok(cudaMemset(x, 0, sizeof(float)));
    ok(cudaDeviceSynchronize());
    add(x, 1, 1.0f, a);
    ok(cudaEventRecord(event, a));
    ok(cudaStreamWaitEvent(b, event));
    ok(cudaMemcpyAsync(y, x, sizeof(float), cudaMemcpyDeviceToDevice, b));
    const cudaEvent_t copied = new_event();
    ok(cudaEventRecord(copied, b));
    ok(cudaStreamWaitEvent(a, copied));
    add(x, 1, 10.0f, a);
    ok(cudaEventRecord(event, a));
    ok(cudaDeviceSynchronize());
    CHECK(on_host(y, 1)[0] == 1.0f);
    CHECK(on_host(x, 1)[0] == 11.0f);
  }
}

TEST_CASE("streams: flags, priorities, queries, destruction with work left") {
  const FreshRuntime fresh;
  int least = 1, greatest = 1, priority = 1;
  ok(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  CHECK(greatest < least);
  cudaStream_t stream = nullptr;
  ok(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, greatest - 10));
  ok(cudaStreamGetPriority(stream, &priority));
  CHECK(priority == greatest);
  unsigned flags = 0;
  ok(cudaStreamGetFlags(stream, &flags));
  CHECK(flags == cudaStreamNonBlocking);
  refused(cudaStreamCreateWithFlags(&stream, 8), cudaErrorInvalidValue);

  float* x = device_array(kCount);
  ok(cudaMemsetAsync(x, 0, kCount * sizeof(float), stream));
  CHECK(cudaPeekAtLastError() == cudaSuccess);
  int asked = 0;
  while (cudaStreamQuery(stream) == cudaErrorNotReady && asked < 1000) ++asked;
  CHECK(asked < 1000);
  cudaGetLastError();
  add(x, kCount, 3.0f, stream);
  ok(cudaStreamDestroy(stream));
  ok(cudaDeviceSynchronize());
  CHECK(on_host(x, kCount)[0] == 3.0f);
  refused(cudaStreamSynchronize(stream), cudaErrorInvalidResourceHandle, {"is no stream, or was destroyed"});
}

TEST_CASE("a host function runs in its stream's order and may not call CUDA") {
  const FreshRuntime fresh;
  const cudaStream_t stream = new_stream();
  struct Seen {
    const float* value;
    float at_call = 0;
    cudaError_t inside = cudaSuccess;
  } seen;
  float *x = device_array(1), *host = pinned_array(1);
  seen.value = host;
  ok(cudaMemsetAsync(x, 0, sizeof(float), stream));
  add(x, 1, 2.0f, stream);
  ok(cudaMemcpyAsync(host, x, sizeof(float), cudaMemcpyDeviceToHost, stream));
  ok(cudaLaunchHostFunc(
      stream,
      [](void* p) {
        auto* s = static_cast<Seen*>(p);
        s->at_call = *s->value;
        s->inside = cudaDeviceSynchronize();
      },
      &seen));
  CHECK(seen.at_call == 0.0f);
  ok(cudaStreamSynchronize(stream));
  CHECK(seen.at_call == 2.0f);
  CHECK(seen.inside == cudaErrorNotPermitted);
  cudaGetLastError();
}

TEST_CASE("work that the host does in place of a kernel keeps the stream's order, is counted apart, and can be captured") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const FreshRuntime fresh(seed);
    const cudaStream_t stream = new_stream(), other = new_stream();
    float* x = device_array(1);
    ok(cudaMemsetAsync(x, 0, sizeof(float), stream));
    const auto on_host_add = [&](float by) {
      sim::launch_on_host(
          "add", [x, by] { *x += by; }, stream);
    };
    add(x, 1, 2.0f, stream);
    on_host_add(3.0f);
    multiply(x, 1, 10.0f, stream);
    ok(cudaStreamSynchronize(stream));
    CHECK(on_host(x, 1)[0] == 50.0f);
    CHECK(sim::runtime_counters().kernels == 2);
    CHECK(sim::runtime_counters().host_kernels == 1);

    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    on_host_add(1.0f);
    cudaGraph_t graph = nullptr;
    ok(cudaStreamEndCapture(stream, &graph));
    cudaGraphExec_t exec = nullptr;
    ok(cudaGraphInstantiate(&exec, graph, 0));
    for (int i = 0; i < 3; ++i) ok(cudaGraphLaunch(exec, stream));
    add(x, 1, 0.0f, other);
    ok(cudaDeviceSynchronize());
    CHECK(on_host(x, 1)[0] == 53.0f);
    CHECK(sim::runtime_counters().host_kernels == 4);
  }
}

TEST_CASE("work in place of a kernel: its exception loses the device by name, and it excuses no race with the host") {
  {
    const FreshRuntime fresh;
    const cudaStream_t stream = new_stream();
    sim::launch_on_host(
        "embedding", [] { throw Error("token 9 of row 2"); }, stream);
    refused(cudaStreamSynchronize(stream), cudaErrorLaunchFailure, {"token 9 of row 2", "stream 1"});
    CHECK_THROWS_WITH(sim::launch_on_host(
                          "rope", [] {}, stream),
                      Catch::Matchers::Contains("launch of rope"));
  }
  const FreshRuntime fresh;
  const cudaStream_t stream = new_stream();
  float *x = device_array(1), *host = pinned_array(1);
  *host = 1.0f;
  sim::launch_on_host(
      "nothing", [] {}, stream);
  ok(cudaMemcpyAsync(x, host, sizeof(float), cudaMemcpyHostToDevice, stream));
  *host = 2.0f;
  refused(cudaStreamSynchronize(stream), cudaErrorIllegalState, {"race with the host on the source"});
}

TEST_CASE("immediate order runs each call at once") {
  sim::RuntimeOptions options;
  options.order = sim::StreamOrder::immediate;
  const FreshRuntime fresh(options);
  float *x = device_array(1), *host = pinned_array(1);
  const cudaStream_t stream = new_stream();
  ok(cudaMemsetAsync(x, 0, sizeof(float), stream));
  add(x, 1, 2.0f, stream);
  ok(cudaMemcpyAsync(host, x, sizeof(float), cudaMemcpyDeviceToHost, stream));
  CHECK(*host == 2.0f);
}

TEST_CASE("several host threads at once") {
  const FreshRuntime fresh;
  std::atomic<int> right{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&right] {
      cudaStream_t stream = nullptr;
      void *x = nullptr, *host = nullptr;
      bool good = cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess;
      good = good && cudaMalloc(&x, 4) == cudaSuccess && cudaMallocHost(&host, 4) == cudaSuccess;
      for (int i = 0; good && i < 5; ++i) {
        good = cudaMemsetAsync(x, 0, 4, stream) == cudaSuccess;
        add(static_cast<float*>(x), 1, static_cast<float>(i), stream);
        good = good && cudaMemcpyAsync(host, x, 4, cudaMemcpyDeviceToHost, stream) == cudaSuccess && cudaStreamSynchronize(stream) == cudaSuccess;
        good = good && *static_cast<float*>(host) == static_cast<float>(i);
      }
      right += good;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(right == 4);
}

}  // namespace
}  // namespace heddle::test
