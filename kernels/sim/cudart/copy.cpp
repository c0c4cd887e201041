// Copies and memsets: CUDA Runtime API, "Memory Management".
#include <algorithm>
#include <cstring>

#include "kernels/sim/core/machine.h"
#include "kernels/sim/cudart/host_watch.h"
#include "kernels/sim/cudart/memory.h"
#include "kernels/sim/cudart/runtime.h"

namespace heddle::sim::cudart {
namespace {

struct Copy {
  Rows to, from;
  cudaMemcpyKind kind;
  bool watched = true;  // the host goes on before the copy has run
  Place to_place = Place::pageable, from_place = Place::pageable;
  int to_device = -1, from_device = -1;  // -1: host
};

const char* name_of(cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost: return "host to host";
    case cudaMemcpyHostToDevice: return "host to device";
    case cudaMemcpyDeviceToHost: return "device to host";
    case cudaMemcpyDeviceToDevice: return "device to device";
    case cudaMemcpyDefault: return "default";
  }
  return "?";
}

std::string size_text(const Rows& rows) {
  return rows.height == 1 ? concat(rows.width, " bytes") : concat(rows.height, " rows of ", rows.width, " bytes");
}

// Fills in the places and refuses what CUDA refuses, and what it leaves undefined.
void check(Copy& copy, const char* api) {
  if (copy.kind < cudaMemcpyHostToHost || copy.kind > cudaMemcpyDefault) refuse(cudaErrorInvalidMemcpyDirection);
  if (copy.to.width > copy.to.pitch || copy.to.width > copy.from.pitch)
    refuse(cudaErrorInvalidPitchValue, api, ": rows of ", copy.to.width, " bytes, but pitches ", copy.to.pitch, " and ", copy.from.pitch);
  if (!copy.to.data || !copy.from.data) refuse(cudaErrorInvalidValue, api, " with a null pointer");
  const std::string what = concat(api, " of ", size_text(copy.to), ": ");
  copy.to_place = memory().place_of(copy.to.data, copy.to.extent(), (what + "destination").c_str(), cudaErrorInvalidValue);
  copy.from_place = memory().place_of(copy.from.data, copy.from.extent(), (what + "source").c_str(), cudaErrorInvalidValue);
  copy.to_device = memory().device_of(copy.to.data);
  copy.from_device = memory().device_of(copy.from.data);
  const bool to_device = copy.to_place == Place::device, from_device = copy.from_place == Place::device;
  const cudaMemcpyKind is =
      to_device ? (from_device ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice) : (from_device ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost);
  // Pinned memory has a device address too, and counts as either.
  const auto allows = [](bool wants_device, Place place) { return place == Place::pinned || wants_device == (place == Place::device); };
  const bool wants_to = copy.kind == cudaMemcpyHostToDevice || copy.kind == cudaMemcpyDeviceToDevice;
  const bool wants_from = copy.kind == cudaMemcpyDeviceToHost || copy.kind == cudaMemcpyDeviceToDevice;
  if (copy.kind != cudaMemcpyDefault && !(allows(wants_to, copy.to_place) && allows(wants_from, copy.from_place)))
    refuse(cudaErrorInvalidValue, what, "the call says ", name_of(copy.kind), ", but the destination is ", name_of(copy.to_place), " and the source ",
           name_of(copy.from_place));
  copy.kind = is;
  if (copy.to.data < copy.from.data + copy.from.extent() && copy.from.data < copy.to.data + copy.to.extent() && copy.to.height == 1)
    refuse(cudaErrorInvalidValue, what, "source and destination overlap; the result is undefined");
}

[[noreturn]] void report_race(const Copy& copy, const std::string& what, bool source) {
  const Place place = source ? copy.from_place : copy.to_place;
  refuse(cudaErrorIllegalState, "race with the host on the ", source ? "source" : "destination", " of an asynchronous copy, ", name_of(place), ": ",
         what, " after the call and before the copy ran. Until the stream is synchronized the host must leave it alone",
         place == Place::pageable ? ", whether or not a real driver stages pageable memory early" : "");
}

void run_copy(const Copy& copy, const HostUse* reads, const HostUse* writes) {
  if (copy.from_place == Place::device) memory().require_live(copy.from.data, copy.from.extent(), "source");
  if (copy.to_place == Place::device) memory().require_live(copy.to.data, copy.to.extent(), "destination");
  if (reads) {
    if (const std::string what = reads->disturbed(); !what.empty()) report_race(copy, what, true);
  }
  if (writes) {
    if (const std::string what = writes->disturbed(); !what.empty()) report_race(copy, what, false);
  }
  for (size_t r = 0; r < copy.to.height; ++r) {
    bool mapped = true;
    if (copy.from_place == Place::pageable)
      mapped = read_host(copy.to.row(r), copy.from.row(r), copy.to.width);
    else if (copy.to_place == Place::pageable)
      mapped = write_host(copy.to.row(r), copy.from.row(r), copy.to.width);
    else
      std::memcpy(copy.to.row(r), copy.from.row(r), copy.to.width);
    if (!mapped) refuse(cudaErrorIllegalAddress, "the host memory of the copy is no longer mapped");
    if (copy.to_place == Place::device) note_host_write(copy.to.row(r), copy.to.width);
  }
  if (copy.to_place != Place::device) note_stream_wrote(copy.to);
}

Operation operation_of(const Copy& copy, const CallSite& site) {
  Operation operation;
  operation.type = cudaGraphNodeTypeMemcpy;
  operation.site = site;
  operation.text = concat("copy of ", size_text(copy.to), " ", name_of(copy.kind));
  operation.shape = concat(name_of(copy.kind), copy.from_device, copy.to_device);
  operation.issue = [copy] {
    std::shared_ptr<HostUse> reads, writes;
    if (copy.watched && copy.from_place != Place::device && !memory().may_be_written_by_kernels(copy.from.data))
      reads = std::make_shared<HostUse>(HostUse::Kind::reads, copy.from);
    if (copy.watched && copy.to_place != Place::device && !memory().may_be_written_by_kernels(copy.to.data))
      writes = std::make_shared<HostUse>(HostUse::Kind::writes, copy.to);
    return Task([copy, reads, writes] {
      run_copy(copy, reads.get(), writes.get());
      return true;
    });
  };
  return operation;
}

Copy flat(void* dst, const void* src, size_t bytes, cudaMemcpyKind kind) {
  Copy copy;
  copy.to = {static_cast<std::byte*>(dst), bytes, bytes, 1};
  copy.from = {const_cast<std::byte*>(static_cast<const std::byte*>(src)), bytes, bytes, 1};
  copy.kind = kind;
  return copy;
}

Copy pitched(void* dst, size_t dpitch, const void* src, size_t spitch, size_t width, size_t height, cudaMemcpyKind kind) {
  Copy copy;
  copy.to = {static_cast<std::byte*>(dst), dpitch, width, height};
  copy.from = {const_cast<std::byte*>(static_cast<const std::byte*>(src)), spitch, width, height};
  copy.kind = kind;
  return copy;
}

void enqueue(Call& call, Copy copy, cudaStream_t handle) {
  CUstream_st& stream = call.rt.stream(handle, call.site.api);
  if (copy.to.width == 0 || copy.to.height == 0) return;
  check(copy, call.site.api);
  const WorkRef item = call.rt.submit(stream, operation_of(copy, call.site));
  if (copy.kind == cudaMemcpyHostToHost && item) call.rt.wait(call.lock, item);  // documented as synchronous
}

// The calls without a stream: in the default stream, and over when they return, but for copies inside device memory.
void synchronous(Call& call, Copy copy) {
  call.rt.forbid_during_capture(call.site);
  if (copy.to.width == 0 || copy.to.height == 0) return;
  check(copy, call.site.api);
  copy.watched = false;
  const WorkRef item = call.rt.submit(legacy_stream(), operation_of(copy, call.site));
  if (copy.kind != cudaMemcpyDeviceToDevice) call.rt.wait(call.lock, item);
}

Operation memset_operation(void* pointer, int value, size_t bytes, const CallSite& site) {
  if (memory().place_of(pointer, bytes, concat(site.api, ": destination").c_str(), cudaErrorInvalidValue) != Place::device)
    refuse(cudaErrorInvalidValue, site.api, ": ", pointer, " is host memory");
  Operation operation;
  operation.type = cudaGraphNodeTypeMemset;
  operation.site = site;
  operation.text = concat("memset of ", bytes, " bytes");
  operation.shape = concat("device ", memory().device_of(pointer));
  operation.issue = [pointer, value, bytes] {
    return Task([pointer, value, bytes] {
      memory().require_live(pointer, bytes, "destination");
      std::memset(pointer, value, bytes);
      note_host_write(pointer, bytes);
      return true;
    });
  };
  return operation;
}

void check_peer(const Copy& copy, int to, int from) {
  if (copy.to.width == 0) return;
  if (memory().device_of(copy.to.data) != to || memory().device_of(copy.from.data) != from)
    refuse(cudaErrorInvalidValue, "a peer copy from device ", from, " to device ", to, ", but the source is ", memory().describe(copy.from.data),
           " and the destination ", memory().describe(copy.to.data));
}

}  // namespace
}  // namespace heddle::sim::cudart

using namespace heddle::sim::cudart;

extern "C" {

cudaError_t cudaMemcpy(void* dst, const void* src, size_t count, enum cudaMemcpyKind kind) {
  return api_call("cudaMemcpy", [&](Call& call) { synchronous(call, flat(dst, src, count, kind)); });
}

cudaError_t cudaMemcpyAsync(void* dst, const void* src, size_t count, enum cudaMemcpyKind kind, cudaStream_t stream) {
  return api_call("cudaMemcpyAsync", [&](Call& call) { enqueue(call, flat(dst, src, count, kind), stream); });
}

cudaError_t cudaMemcpy2D(void* dst, size_t dpitch, const void* src, size_t spitch, size_t width, size_t height, enum cudaMemcpyKind kind) {
  return api_call("cudaMemcpy2D", [&](Call& call) { synchronous(call, pitched(dst, dpitch, src, spitch, width, height, kind)); });
}

cudaError_t cudaMemcpy2DAsync(void* dst, size_t dpitch, const void* src, size_t spitch, size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream) {
  return api_call("cudaMemcpy2DAsync", [&](Call& call) { enqueue(call, pitched(dst, dpitch, src, spitch, width, height, kind), stream); });
}

cudaError_t cudaMemcpyPeer(void* dst, int dstDevice, const void* src, int srcDevice, size_t count) {
  return api_call("cudaMemcpyPeer", [&](Call& call) {
    const Copy copy = flat(dst, src, count, cudaMemcpyDeviceToDevice);
    check_peer(copy, dstDevice, srcDevice);
    synchronous(call, copy);
  });
}

cudaError_t cudaMemcpyPeerAsync(void* dst, int dstDevice, const void* src, int srcDevice, size_t count, cudaStream_t stream) {
  return api_call("cudaMemcpyPeerAsync", [&](Call& call) {
    const Copy copy = flat(dst, src, count, cudaMemcpyDeviceToDevice);
    check_peer(copy, dstDevice, srcDevice);
    enqueue(call, copy, stream);
  });
}

cudaError_t cudaMemset(void* devPtr, int value, size_t count) {
  return api_call("cudaMemset", [&](Call& call) {
    call.rt.forbid_during_capture(call.site);
    if (count > 0) call.rt.submit(legacy_stream(), memset_operation(devPtr, value, count, call.site));
  });
}

cudaError_t cudaMemsetAsync(void* devPtr, int value, size_t count, cudaStream_t stream) {
  return api_call("cudaMemsetAsync", [&](Call& call) {
    CUstream_st& to = call.rt.stream(stream, call.site.api);
    if (count > 0) call.rt.submit(to, memset_operation(devPtr, value, count, call.site));
  });
}

}  // extern "C"
