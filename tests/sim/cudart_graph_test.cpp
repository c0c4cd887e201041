// Stream capture and graphs.
#include <functional>
#include <thread>
#include <utility>

#include "tests/sim/cudart_kernels.h"
#include "tests/sim/cudart_support.h"

namespace heddle::test {
namespace {

constexpr int kSeeds = 20;

struct Forked {
  cudaGraph_t graph = nullptr;
  size_t nodes = 0;
};

// y = x + 1 on a side stream, x2 = x * 3 on the captured one, then sum on the captured one; join = false forgets the edge back.
cudaError_t capture_fork(float* x, float* y, float by, bool join, Forked& out) {
  const cudaStream_t main = new_stream(), side = new_stream();
  const cudaEvent_t fork = new_event(), joined = new_event();
  ok(cudaStreamBeginCapture(main, cudaStreamCaptureModeGlobal));
  ok(cudaMemcpyAsync(y, x, sizeof(float), cudaMemcpyDeviceToDevice, main));
  ok(cudaEventRecord(fork, main));
  ok(cudaStreamWaitEvent(side, fork));
  add(y, 1, by, side);
  multiply(x, 1, 3.0f, main);
  ok(cudaEventRecord(joined, side));
  if (join) ok(cudaStreamWaitEvent(main, joined));
  add(x, 1, 1.0f, main);
  const cudaError_t status = cudaStreamEndCapture(main, &out.graph);
  if (status == cudaSuccess) ok(cudaGraphGetNodes(out.graph, nullptr, &out.nodes));
  return status;
}

TEST_CASE("a captured fork and join runs in its own order, as often as it is launched") {
  for (uint64_t seed = 1; seed <= kSeeds; ++seed) {
    const FreshRuntime fresh(seed);
    float *x = device_array(1), *y = device_array(1);
    Forked forked;
    ok(capture_fork(x, y, 1.0f, true, forked));
    CHECK(forked.nodes == 4);
    std::vector<cudaGraphNode_t> nodes(4);
    cudaGraphNodeType type;
    ok(cudaGraphGetNodes(forked.graph, nodes.data(), &forked.nodes));
    ok(cudaGraphNodeGetType(nodes[0], &type));
    CHECK(type == cudaGraphNodeTypeMemcpy);
    to_device(x, {2.0f});  // nothing of the capture has run
    cudaGraphExec_t exec = nullptr;
    ok(cudaGraphInstantiate(&exec, forked.graph));
    ok(cudaGraphDestroy(forked.graph));  // the executable graph needs it no more
    const cudaStream_t stream = new_stream();
    ok(cudaGraphLaunch(exec, stream));
    ok(cudaGraphLaunch(exec, stream));
    add(y, 1, 100.0f, stream);
    ok(cudaStreamSynchronize(stream));
    CHECK(on_host(x, 1)[0] == 22.0f);   // 2 -> 7 -> 22
    CHECK(on_host(y, 1)[0] == 108.0f);  // 7 + 1, then 100 after the graph
    ok(cudaGraphExecDestroy(exec));
  }
}

TEST_CASE("an executable graph takes new parameters and refuses another shape") {
  const FreshRuntime fresh;
  float *x = device_array(1), *y = device_array(1);
  Forked first, second;
  ok(capture_fork(x, y, 1.0f, true, first));
  ok(capture_fork(x, y, 50.0f, true, second));
  cudaGraphExec_t exec = nullptr;
  ok(cudaGraphInstantiate(&exec, first.graph));
  cudaGraphExecUpdateResultInfo info;
  ok(cudaGraphExecUpdate(exec, second.graph, &info));
  CHECK(info.result == cudaGraphExecUpdateSuccess);
  to_device(x, {2.0f});
  ok(cudaGraphLaunch(exec, nullptr));
  CHECK(on_host(y, 1)[0] == 52.0f);

  const cudaStream_t stream = new_stream();
  cudaGraph_t other = nullptr;
  const auto captured = [&](auto work) {
    ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    work();
    ok(cudaStreamEndCapture(stream, &other));
    return cudaGraphExecUpdate(exec, other, &info);
  };
  refused(captured([&] { add(x, 1, 1.0f, stream); }), cudaErrorGraphExecUpdateFailure, {"the graph has 1 nodes, it had 4"});
  CHECK(info.result == cudaGraphExecUpdateErrorTopologyChanged);
  refused(captured([&] {
            for (int i = 0; i < 4; ++i) add(x, 1, 1.0f, stream);
          }),
          cudaErrorGraphExecUpdateFailure, {"node 0 is kernel add_kernel", "it was copy of 4 bytes device to device"});
  CHECK(info.result == cudaGraphExecUpdateErrorNodeTypeChanged);
  float* pinned = pinned_array(1);
  refused(captured([&] {
            ok(cudaMemcpyAsync(y, pinned, 4, cudaMemcpyHostToDevice, stream));
            for (int i = 0; i < 3; ++i) add(x, 1, 1.0f, stream);
          }),
          cudaErrorGraphExecUpdateFailure, {"node 0 is copy of 4 bytes host to device"});
  CHECK(info.result == cudaGraphExecUpdateErrorParametersChanged);
}

TEST_CASE("work that no event leads back is named") {
  const FreshRuntime fresh;
  float *x = device_array(1), *y = device_array(1);
  Forked forked;
  refused(capture_fork(x, y, 1.0f, false, forked), cudaErrorStreamCaptureUnjoined,
          {"no event leads kernel add_kernel", "of stream 2 back to stream 1"});
  CHECK(forked.graph == nullptr);
}

// Begins a capture in a fresh stream, does act, and says how the capture ended.
template <class Act>
cudaError_t end_after(cudaStreamCaptureMode mode, Act act, unsigned flags = cudaStreamNonBlocking) {
  const cudaStream_t stream = new_stream(flags);
  ok(cudaStreamBeginCapture(stream, mode));
  act(stream);
  cudaGraph_t graph = nullptr;
  return cudaStreamEndCapture(stream, &graph);
}

TEST_CASE("calls that a capture forbids fail and end it") {
  const FreshRuntime fresh;
  float* x = device_array(1);
  const cudaEvent_t event = new_event();
  void* more = nullptr;
  struct Forbidden {
    std::string name;
    std::function<cudaError_t(cudaStream_t)> call;
  };
  const std::vector<Forbidden> forbidden = {
      {"cudaMalloc", [&](cudaStream_t) { return cudaMalloc(&more, 4); }},
      {"cudaFree", [&](cudaStream_t) { return cudaFree(x); }},
      {"cudaMallocHost", [&](cudaStream_t) { return cudaMallocHost(&more, 4); }},
      {"cudaDeviceSynchronize", [&](cudaStream_t) { return cudaDeviceSynchronize(); }},
      {"cudaStreamSynchronize", [&](cudaStream_t s) { return cudaStreamSynchronize(s); }},
      {"cudaStreamQuery", [&](cudaStream_t s) { return cudaStreamQuery(s); }},
      {"cudaEventQuery", [&](cudaStream_t) { return cudaEventQuery(event); }},
      {"cudaMemcpy", [&](cudaStream_t) { return cudaMemcpy(x, x, 4, cudaMemcpyDeviceToDevice); }},
      {"cudaMemset", [&](cudaStream_t) { return cudaMemset(x, 0, 4); }},
  };
  for (const Forbidden& f : forbidden) {
    INFO(f.name);
    const cudaError_t end = end_after(cudaStreamCaptureModeGlobal, [&](cudaStream_t stream) {
      refused(f.call(stream), cudaErrorStreamCaptureUnsupported, {f.name + " called by", "is capturing"});
      cudaStreamCaptureStatus status;
      ok(cudaStreamIsCapturing(stream, &status));
      CHECK(status == cudaStreamCaptureStatusInvalidated);
    });
    refused(end, cudaErrorStreamCaptureInvalidated, {f.name + " called by"});
  }
  // Another thread may allocate beside a thread-local capture, this one beside a relaxed one.
  ok(end_after(cudaStreamCaptureModeThreadLocal, [&](cudaStream_t) { std::thread([&] { ok(cudaMalloc(&more, 4)); }).join(); }));
  ok(end_after(cudaStreamCaptureModeRelaxed, [&](cudaStream_t) { ok(cudaMalloc(&more, 4)); }));
  ok(end_after(cudaStreamCaptureModeGlobal, [&](cudaStream_t) {
    cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
    ok(cudaThreadExchangeStreamCaptureMode(&mode));
    CHECK(mode == cudaStreamCaptureModeGlobal);
    ok(cudaMalloc(&more, 4));
    ok(cudaThreadExchangeStreamCaptureMode(&mode));
  }));
  ok(cudaFree(more));
}

TEST_CASE("captures keep apart from the default stream, from other work and from each other") {
  const FreshRuntime fresh;
  float* x = device_array(1);
  refused(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal), cudaErrorStreamCaptureUnsupported, {"default stream"});
  // The default stream would wait for a blocking stream, not for a non-blocking one.
  refused(end_after(
              cudaStreamCaptureModeRelaxed,
              [&](cudaStream_t) { refused(cudaMemsetAsync(x, 0, 4, nullptr), cudaErrorStreamCaptureImplicit, {"would wait for stream 1"}); },
              cudaStreamDefault),
          cudaErrorStreamCaptureInvalidated);
  ok(end_after(cudaStreamCaptureModeRelaxed, [&](cudaStream_t) { ok(cudaMemsetAsync(x, 0, 4, nullptr)); }));

  const cudaEvent_t outside = new_event(), inside = new_event();
  const cudaStream_t other = new_stream();
  ok(cudaEventRecord(outside, other));
  refused(end_after(cudaStreamCaptureModeGlobal,
                    [&](cudaStream_t s) { refused(cudaStreamWaitEvent(s, outside), cudaErrorStreamCaptureIsolation, {"recorded outside"}); }),
          cudaErrorStreamCaptureInvalidated);
  ok(end_after(cudaStreamCaptureModeGlobal, [&](cudaStream_t s) {
    add(x, 1, 1.0f, s);
    ok(cudaEventRecord(inside, s));
    refused(cudaEventSynchronize(inside), cudaErrorCapturedEvent);
    refused(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), cudaErrorIllegalState, {"capturing already"});
  }));
  refused(cudaStreamWaitEvent(other, inside), cudaErrorCapturedEvent, {"a capture that has ended"});

  ok(cudaStreamBeginCapture(other, cudaStreamCaptureModeGlobal));
  ok(cudaEventRecord(inside, other));
  refused(end_after(cudaStreamCaptureModeGlobal,
                    [&](cudaStream_t s) { refused(cudaStreamWaitEvent(s, inside), cudaErrorStreamCaptureMerge, {"join two captures"}); }),
          cudaErrorStreamCaptureInvalidated);
  cudaGraph_t graph = nullptr;
  std::thread([&] { refused(cudaStreamEndCapture(other, &graph), cudaErrorStreamCaptureWrongThread); }).join();
  ok(cudaStreamEndCapture(other, &graph));
  refused(cudaStreamEndCapture(other, &graph), cudaErrorIllegalState, {"is not capturing"});
}

}  // namespace
}  // namespace heddle::test
