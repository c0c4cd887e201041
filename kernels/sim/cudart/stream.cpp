// Streams, events and host functions: CUDA Runtime API, "Stream Management", "Event Management".
#include <algorithm>

#include "kernels/sim/cudart/host_watch.h"
#include "kernels/sim/cudart/runtime.h"

namespace heddle::sim::cudart {
namespace {

void create_stream(Call& call, cudaStream_t* out, unsigned flags, int priority) {
  if (!out || (flags & ~unsigned{cudaStreamNonBlocking})) refuse(cudaErrorInvalidValue, call.site.api, ": flags ", flags);
  auto stream = std::make_unique<CUstream_st>();
  stream->name = concat("stream ", call.rt.next_stream++);
  stream->device = legacy_stream().device;
  stream->flags = flags;
  stream->priority = std::clamp(priority, -5, 0);
  *out = stream.release();
  call.rt.streams.insert(*out);
}

// For calls that wait for a stream: a capturing one has nothing to wait for.
void refuse_capturing(Call& call, CUstream_st& stream) {
  if (stream.capture)
    call.rt.invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported, concat(call.site.text(), " while ", stream.name, " is capturing"));
  if (!stream.legacy) return;
  for (const auto& capture : call.rt.captures) {
    for (const CUstream_st* member : capture->members) {
      if (member->blocking() && member->device == stream.device)
        call.rt.invalidate(*capture, cudaErrorStreamCaptureImplicit,
                           concat(call.site.text(), " on the default stream, which would wait for ", member->name, ", which is capturing"));
    }
  }
}

Operation plain(const CallSite& site, std::string text) {
  Operation operation;
  operation.site = site;
  operation.text = std::move(text);
  return operation;
}

void record(Call& call, cudaEvent_t handle, cudaStream_t stream_handle) {
  CUevent_st& event = call.rt.event(handle, call.site.api);
  CUstream_st& stream = call.rt.stream(stream_handle, call.site.api);
  if (stream.capture) {
    if (!stream.capture->invalid.empty()) refuse(cudaErrorStreamCaptureInvalidated, stream.capture->invalid);
    event.capture = stream.capture->id;
    event.captured = stream.tails;
    event.record = nullptr;
    return;
  }
  Operation operation = plain(call.site, concat("record of ", event.name));
  event.time = std::make_shared<double>(-1.0);
  operation.issue = [time = event.time] {
    return Task([time] {
      *time = runtime().milliseconds();
      return true;
    });
  };
  event.record = call.rt.submit(stream, std::move(operation));
  event.capture = 0;
  event.captured.clear();
}

// cudaStreamWaitEvent where a capture has a part in it.
void wait_captured(Call& call, CUstream_st& stream, const CUevent_st& event) {
  const auto entry = std::ranges::find_if(call.rt.captures, [&](const auto& c) { return c->id == event.capture; });
  if (event.capture == 0)
    call.rt.invalidate(*stream.capture, cudaErrorStreamCaptureIsolation,
                       concat(stream.name, " is capturing and would wait for ", event.name, ", which was recorded outside the capture"));
  if (entry == call.rt.captures.end()) refuse(cudaErrorCapturedEvent, event.name, " was recorded in a capture that has ended");
  Capture& capture = **entry;
  if (!capture.invalid.empty()) refuse(cudaErrorStreamCaptureInvalidated, capture.invalid);
  if (stream.legacy) call.rt.invalidate(capture, cudaErrorStreamCaptureImplicit, "the default stream cannot take part in a capture");
  if (stream.capture && stream.capture != &capture)
    call.rt.invalidate(*stream.capture, cudaErrorStreamCaptureMerge, concat(stream.name, " would join two captures by waiting for ", event.name));
  stream.capture = &capture;
  capture.members.insert(&stream);
  for (CUgraphNode_st* node : event.captured) {
    if (std::ranges::find(stream.tails, node) == stream.tails.end()) stream.tails.push_back(node);
  }
}

void refuse_captured(const CUevent_st& event) {
  if (event.capture != 0) refuse(cudaErrorCapturedEvent, event.name, " was recorded in a capturing stream");
}

}  // namespace
}  // namespace heddle::sim::cudart

using namespace heddle::sim::cudart;

extern "C" {

cudaError_t cudaStreamCreate(cudaStream_t* pStream) {
  return api_call("cudaStreamCreate", [&](Call& call) { create_stream(call, pStream, cudaStreamDefault, 0); });
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* pStream, unsigned int flags) {
  return api_call("cudaStreamCreateWithFlags", [&](Call& call) { create_stream(call, pStream, flags, 0); });
}

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* pStream, unsigned int flags, int priority) {
  return api_call("cudaStreamCreateWithPriority", [&](Call& call) { create_stream(call, pStream, flags, priority); });
}

// Returns at once; what is in the stream still runs.
cudaError_t cudaStreamDestroy(cudaStream_t handle) {
  return api_call("cudaStreamDestroy", [&](Call& call) {
    CUstream_st& stream = call.rt.stream(handle, call.site.api);
    if (!call.rt.streams.count(&stream)) refuse(cudaErrorInvalidResourceHandle, "the default stream cannot be destroyed");
    refuse_capturing(call, stream);
    if (stream.last && !stream.last->done) call.rt.orphans.push_back({stream.device, stream.last});
    call.rt.streams.erase(&stream);
    delete &stream;
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  return api_call("cudaStreamSynchronize", [&](Call& call) {
    CUstream_st& stream = call.rt.stream(handle, call.site.api);
    refuse_capturing(call, stream);
    // The default stream's next piece of work would wait for the blocking streams; waiting for it waits for them.
    if (stream.legacy) call.rt.append(stream, std::make_shared<const Operation>(plain(call.site, "wait of the host")));
    call.rt.wait_stream(call.lock, stream);
  });
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  return api_call("cudaStreamQuery", [&](Call& call) {
    CUstream_st& stream = call.rt.stream(handle, call.site.api);
    refuse_capturing(call, stream);
    const WorkRef last = stream.last;
    call.rt.progress(call.lock);
    if (last && !last->done) refuse(cudaErrorNotReady);
  });
}

cudaError_t cudaStreamGetPriority(cudaStream_t handle, int* priority) {
  return api_call("cudaStreamGetPriority", [&](Call& call) { *priority = call.rt.stream(handle, call.site.api).priority; });
}

cudaError_t cudaStreamGetFlags(cudaStream_t handle, unsigned int* flags) {
  return api_call("cudaStreamGetFlags", [&](Call& call) { *flags = call.rt.stream(handle, call.site.api).flags; });
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream_handle, cudaEvent_t event_handle, unsigned int) {
  return api_call("cudaStreamWaitEvent", [&](Call& call) {
    CUstream_st& stream = call.rt.stream(stream_handle, call.site.api);
    const CUevent_st& event = call.rt.event(event_handle, call.site.api);
    if (static_cast<int64_t>(call.rt.waits++) == call.rt.forgotten_wait) return;
    if (stream.capture || event.capture != 0) {
      wait_captured(call, stream, event);
    } else if (event.record && (call.rt.recording || !event.record->done)) {
      call.rt.append(stream, std::make_shared<const Operation>(plain(call.site, heddle::concat("wait for ", event.name))), {event.record});
      if (call.rt.recording) call.rt.recorded.back().event = event.record->number;
    }
  });
}

cudaError_t cudaLaunchHostFunc(cudaStream_t handle, cudaHostFn_t fn, void* userData) {
  return api_call("cudaLaunchHostFunc", [&](Call& call) {
    CUstream_st& stream = call.rt.stream(handle, call.site.api);
    if (!fn) refuse(cudaErrorInvalidValue, "cudaLaunchHostFunc without a function");
    Operation operation = plain(call.site, "host function");
    operation.type = cudaGraphNodeTypeHost;
    operation.issue = [fn, userData] {
      struct Pending {
        Pending() { host_function_pending(1); }
        ~Pending() { host_function_pending(-1); }
      };
      return Task([fn, userData, pending = std::make_shared<Pending>()] {
        fn(userData);
        note_host_function_ran();
        return true;
      });
    };
    call.rt.submit(stream, std::move(operation));
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* out, unsigned int flags) {
  return api_call("cudaEventCreate", [&](Call& call) {
    constexpr unsigned kKnown = cudaEventBlockingSync | cudaEventDisableTiming | cudaEventInterprocess;
    if (!out || (flags & ~kKnown) || ((flags & cudaEventInterprocess) && !(flags & cudaEventDisableTiming)))
      refuse(cudaErrorInvalidValue, "cudaEventCreateWithFlags: flags ", flags);
    auto event = std::make_unique<CUevent_st>();
    event->name = heddle::concat("event ", call.rt.next_event++);
    event->flags = flags;
    *out = event.release();
    call.rt.events.insert(*out);
  });
}

cudaError_t cudaEventDestroy(cudaEvent_t handle) {
  return api_call("cudaEventDestroy", [&](Call& call) {
    CUevent_st& event = call.rt.event(handle, call.site.api);
    call.rt.events.erase(&event);
    delete &event;
  });
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return api_call("cudaEventRecord", [&](Call& call) { record(call, event, stream); });
}

cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned int flags) {
  return api_call("cudaEventRecordWithFlags", [&](Call& call) {
    if (flags != cudaEventRecordDefault) refuse(cudaErrorNotSupported, "the simulated runtime records events inside graphs as edges only");
    record(call, event, stream);
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t handle) {
  return api_call("cudaEventSynchronize", [&](Call& call) {
    const CUevent_st& event = call.rt.event(handle, call.site.api);
    refuse_captured(event);
    call.rt.forbid_during_capture(call.site);
    call.rt.wait(call.lock, event.record);
  });
}

cudaError_t cudaEventQuery(cudaEvent_t handle) {
  return api_call("cudaEventQuery", [&](Call& call) {
    const CUevent_st& event = call.rt.event(handle, call.site.api);
    refuse_captured(event);
    call.rt.forbid_during_capture(call.site);
    const WorkRef record = event.record;
    call.rt.progress(call.lock);
    if (record && !record->done) refuse(cudaErrorNotReady);
  });
}

cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  return api_call("cudaEventElapsedTime", [&](Call& call) {
    const CUevent_st &first = call.rt.event(start, call.site.api), &last = call.rt.event(end, call.site.api);
    for (const CUevent_st* event : {&first, &last}) {
      refuse_captured(*event);
      if (event->flags & cudaEventDisableTiming) refuse(cudaErrorInvalidResourceHandle, event->name, " was created with cudaEventDisableTiming");
      if (!event->record) refuse(cudaErrorInvalidResourceHandle, event->name, " was never recorded");
    }
    if (!first.record->done || !last.record->done) refuse(cudaErrorNotReady);
    *ms = static_cast<float>(*last.time - *first.time);
  });
}

}  // extern "C"

void heddle::sim::launch_on_host(const char* name, std::function<void()> work, void* native_stream) {
  const cudaError_t status = guarded(name, return_address(), [&](Call& call) {
    Operation operation = plain(call.site, heddle::concat("kernel ", name, " on the host"));
    operation.type = cudaGraphNodeTypeHost;
    operation.in_place_of_kernel = true;
    operation.issue = [work = std::make_shared<const std::function<void()>>(std::move(work))] {
      return Task([work] {
        (*work)();
        return true;
      });
    };
    call.rt.submit(call.rt.stream(static_cast<cudaStream_t>(native_stream), name), std::move(operation));
  });
  if (status != cudaSuccess) fail("cuda", heddle::concat("launch of ", name, ": ", cudaGetErrorString(status)));
}
