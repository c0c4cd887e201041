// Allocation: CUDA Runtime API, "Memory Management" and "Stream Ordered Memory Allocator".
#include <cstring>

#include "kernels/sim/cudart/memory.h"
#include "kernels/sim/cudart/runtime.h"

namespace heddle::sim::cudart {
namespace {

// Neither call returns before the devices are idle, so pending work cannot lose its memory.
void wait_all(Call& call) {
  for (int device = 0; device < call.rt.options.devices; ++device) call.rt.wait_device(call.lock, device);
}

void allocate_host(Call& call, void** out, size_t bytes, unsigned flags) {
  call.rt.forbid_during_capture(call.site);
  if (!out || (flags & ~unsigned{cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined}))
    refuse(cudaErrorInvalidValue, call.site.api, ": flags ", flags);
  *out = bytes == 0 ? nullptr : memory().allocate_host(bytes, flags & cudaHostAllocMapped, call.site);
}

Operation pool_operation(const CallSite& site, cudaGraphNodeType type, std::string text, std::function<void()> act) {
  Operation operation;
  operation.type = type;
  operation.site = site;
  operation.text = std::move(text);
  operation.issue = [act = std::move(act)] {
    return Task([act] {
      act();
      return true;
    });
  };
  return operation;
}

// One pool per device; its handle is the device's number plus one.
cudaMemPool_t pool_of(int device) {
  return reinterpret_cast<cudaMemPool_t>(static_cast<uintptr_t>(device) + 1);
}
int device_of_pool(const Runtime& rt, cudaMemPool_t pool) {
  const auto device = static_cast<int64_t>(reinterpret_cast<uintptr_t>(pool)) - 1;
  if (device < 0 || device >= rt.options.devices) refuse(cudaErrorInvalidValue, "no memory pool of a device");
  return static_cast<int>(device);
}

}  // namespace
}  // namespace heddle::sim::cudart

using namespace heddle::sim::cudart;

extern "C" {

cudaError_t cudaMalloc(void** devPtr, size_t size) {
  void* const caller = return_address();
  return guarded("cudaMalloc", caller, [&](Call& call) {
    if (!devPtr) refuse(cudaErrorInvalidValue, "cudaMalloc into a null pointer");
    call.rt.forbid_during_capture(call.site);
    install_fault_handler();
    *devPtr = size == 0 ? nullptr : memory().allocate(legacy_stream().device, size, false, call_site_deep("cudaMalloc", caller), {});
  });
}

cudaError_t cudaFree(void* devPtr) {
  void* const caller = return_address();
  return guarded("cudaFree", caller, [&](Call& call) {
    call.rt.forbid_during_capture(call.site);
    if (!devPtr) return;
    wait_all(call);
    memory().free(devPtr, call_site_deep("cudaFree", caller));
  });
}

cudaError_t cudaMallocAsync(void** devPtr, size_t size, cudaStream_t hStream) {
  void* const caller = return_address();
  return guarded("cudaMallocAsync", caller, [&](Call& call) {
    CUstream_st& stream = call.rt.stream(hStream, call.site.api);
    if (!devPtr) refuse(cudaErrorInvalidValue, "cudaMallocAsync into a null pointer");
    if (stream.capture)
      call.rt.invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported,
                         "the simulated runtime has no allocations inside graphs: allocate before");
    install_fault_handler();
    *devPtr = nullptr;
    if (size == 0) return;
    std::byte* const data = memory().allocate(stream.device, size, true, call_site_deep("cudaMallocAsync", caller), stream.name);
    *devPtr = data;
    call.rt.submit(stream, pool_operation(call.site, cudaGraphNodeTypeMemAlloc, heddle::concat("allocation of ", size, " bytes"),
                                          [data] { memory().make_live(data); }));
  });
}

cudaError_t cudaFreeAsync(void* devPtr, cudaStream_t hStream) {
  void* const caller = return_address();
  return guarded("cudaFreeAsync", caller, [&](Call& call) {
    CUstream_st& stream = call.rt.stream(hStream, call.site.api);
    if (stream.capture) call.rt.invalidate(*stream.capture, cudaErrorStreamCaptureUnsupported, "the simulated runtime frees nothing inside graphs");
    if (!devPtr) return;
    memory().request_free(devPtr, call_site_deep("cudaFreeAsync", caller), stream.name);
    auto* const data = static_cast<std::byte*>(devPtr);
    call.rt.submit(stream, pool_operation(call.site, cudaGraphNodeTypeMemFree, "release of memory", [data] { memory().finish_free(data); }));
  });
}

cudaError_t cudaMallocHost(void** ptr, size_t size) {
  return api_call("cudaMallocHost", [&](Call& call) { allocate_host(call, ptr, size, cudaHostAllocDefault); });
}

cudaError_t cudaHostAlloc(void** pHost, size_t size, unsigned int flags) {
  return api_call("cudaHostAlloc", [&](Call& call) { allocate_host(call, pHost, size, flags); });
}

cudaError_t cudaFreeHost(void* ptr) {
  return api_call("cudaFreeHost", [&](Call& call) {
    call.rt.forbid_during_capture(call.site);
    if (!ptr) return;
    wait_all(call);
    memory().free_host(ptr);
  });
}

cudaError_t cudaHostRegister(void* ptr, size_t size, unsigned int flags) {
  return api_call("cudaHostRegister", [&](Call& call) {
    call.rt.forbid_during_capture(call.site);
    memory().register_host(ptr, size, flags & cudaHostRegisterMapped, call.site);
  });
}

cudaError_t cudaHostUnregister(void* ptr) {
  return api_call("cudaHostUnregister", [&](Call& call) {
    call.rt.forbid_during_capture(call.site);
    wait_all(call);
    memory().unregister_host(ptr);
  });
}

cudaError_t cudaHostGetDevicePointer(void** pDevice, void* pHost, unsigned int flags) {
  return api_call("cudaHostGetDevicePointer", [&](Call&) {
    if (flags != 0 || memory().place_of(pHost, 1, "host pointer", cudaErrorInvalidValue) != Place::pinned)
      refuse(cudaErrorInvalidValue, "cudaHostGetDevicePointer of ", memory().describe(pHost));
    memory().mark_mapped(pHost);
    *pDevice = pHost;
  });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return api_call("cudaMemGetInfo", [&](Call&) {
    *total = memory().limit();
    *free = memory().limit() - memory().used(legacy_stream().device);
  });
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes* attributes, const void* ptr) {
  return api_call("cudaPointerGetAttributes", [&](Call&) {
    *attributes = {};
    attributes->device = -2;  // cudaInvalidDeviceId
    attributes->type = cudaMemoryTypeUnregistered;
    attributes->hostPointer = const_cast<void*>(ptr);
    Allocation allocation;
    HostRange range;
    if (memory().is_device(ptr)) {
      attributes->hostPointer = nullptr;
      if (!memory().find_device(ptr, allocation) || allocation.life == Life::freed) return;
      attributes->type = cudaMemoryTypeDevice;
      attributes->device = allocation.device;
      attributes->devicePointer = const_cast<void*>(ptr);
    } else if (memory().find_host(ptr, range)) {
      attributes->type = cudaMemoryTypeHost;
      attributes->device = thread_state().device;
      attributes->devicePointer = const_cast<void*>(ptr);
    }
  });
}

// ---- the pool of a device: it gives back at once, so thresholds are accepted and change nothing ----

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t* memPool, int device) {
  return api_call("cudaDeviceGetDefaultMemPool", [&](Call& call) {
    *memPool = pool_of(device);
    device_of_pool(call.rt, *memPool);
  });
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t memPool, enum cudaMemPoolAttr attr, void*) {
  return api_call("cudaMemPoolSetAttribute", [&](Call& call) {
    device_of_pool(call.rt, memPool);
    if (attr < cudaMemPoolReuseFollowEventDependencies || attr > cudaMemPoolAttrReleaseThreshold)
      refuse(cudaErrorInvalidValue, "cudaMemPoolSetAttribute: attribute ", static_cast<int>(attr), " cannot be set");
  });
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t memPool, enum cudaMemPoolAttr attr, void* value) {
  return api_call("cudaMemPoolGetAttribute", [&](Call& call) {
    const int device = device_of_pool(call.rt, memPool);
    const auto put = [value](uint64_t n) { std::memcpy(value, &n, sizeof n); };
    switch (attr) {
      case cudaMemPoolAttrReleaseThreshold: return put(0);
      case cudaMemPoolAttrReservedMemCurrent:
      case cudaMemPoolAttrUsedMemCurrent: return put(memory().used(device));
      case cudaMemPoolAttrReservedMemHigh:
      case cudaMemPoolAttrUsedMemHigh: return put(memory().high_water(device));
      default: refuse(cudaErrorInvalidValue, "cudaMemPoolGetAttribute: attribute ", static_cast<int>(attr));
    }
  });
}

cudaError_t cudaMemPoolTrimTo(cudaMemPool_t memPool, size_t) {
  return api_call("cudaMemPoolTrimTo", [&](Call& call) { device_of_pool(call.rt, memPool); });
}

}  // extern "C"
