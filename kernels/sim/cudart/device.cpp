#include "kernels/sim/cudart/device.h"

#include <cuda_runtime_api.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

#include "kernels/sim/cudart/memory.h"
#include "kernels/sim/cudart/runtime.h"

namespace heddle::sim::cudart {

uint64_t blocks_per_multiprocessor(uint64_t threads, size_t shared_bytes) {
  if (threads == 0 || threads > kThreadsPerBlock || shared_bytes > kSharedPerBlockOptIn) return 0;
  const uint64_t warps = (threads + 31) / 32;
  const uint64_t by_threads = kThreadsPerMultiprocessor / (warps * 32);
  const uint64_t by_shared = kSharedPerMultiprocessor / (shared_bytes + kSharedReserved);
  return std::min({by_threads, by_shared, uint64_t{kBlocksPerMultiprocessor}});
}

namespace {

// What cudaFuncSetAttribute has set, by kernel.
struct FunctionLimits {
  int dynamic_shared = kSharedPerBlock;
  int carveout = -1;
  int large_clusters = 0;
};
std::map<const void*, FunctionLimits>& function_limits() {
  static std::map<const void*, FunctionLimits> limits;
  return limits;
}

void require_device(const Runtime& rt, int device) {
  if (device < 0 || device >= rt.options.devices)
    refuse(cudaErrorInvalidDevice, "device ", device, " of ", rt.options.devices, " (HEDDLE_SIM_DEVICES)");
}

int attribute(const Runtime& rt, cudaDeviceAttr which) {
  switch (which) {
    case cudaDevAttrMaxThreadsPerBlock: return kThreadsPerBlock;
    case cudaDevAttrMaxBlockDimX:
    case cudaDevAttrMaxBlockDimY: return 1024;
    case cudaDevAttrMaxBlockDimZ: return 64;
    case cudaDevAttrMaxGridDimX: return 0x7fffffff;
    case cudaDevAttrMaxGridDimY:
    case cudaDevAttrMaxGridDimZ: return 65535;
    case cudaDevAttrMaxSharedMemoryPerBlock: return kSharedPerBlock;
    case cudaDevAttrWarpSize: return 32;
    case cudaDevAttrMaxRegistersPerBlock:
    case cudaDevAttrMaxRegistersPerMultiprocessor: return kRegisters;
    case cudaDevAttrClockRate: return 1000000;  // kHz; nothing is timed by it
    case cudaDevAttrMultiProcessorCount: return rt.options.multiprocessors;
    case cudaDevAttrMemoryClockRate: return 1000000;
    case cudaDevAttrGlobalMemoryBusWidth: return 5120;
    case cudaDevAttrL2CacheSize: return 50 << 20;
    case cudaDevAttrMaxThreadsPerMultiProcessor: return kThreadsPerMultiprocessor;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrStreamPrioritiesSupported:
    case cudaDevAttrCooperativeLaunch:
    case cudaDevAttrMemoryPoolsSupported:
    case cudaDevAttrClusterLaunch: return 1;
    case cudaDevAttrComputeCapabilityMajor: return rt.options.capability / 10;
    case cudaDevAttrComputeCapabilityMinor: return rt.options.capability % 10;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: return kSharedPerMultiprocessor;
    case cudaDevAttrManagedMemory:
    case cudaDevAttrPageableMemoryAccess:
    case cudaDevAttrConcurrentManagedAccess: return 0;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: return kSharedPerBlockOptIn;
    case cudaDevAttrMaxBlocksPerMultiprocessor: return kBlocksPerMultiprocessor;
    case cudaDevAttrReservedSharedMemoryPerBlock: return kSharedReserved;
    default: refuse(cudaErrorInvalidValue, "cudaDeviceGetAttribute: the simulated device has no answer for attribute ", static_cast<int>(which));
  }
}

}  // namespace
}  // namespace heddle::sim::cudart

using namespace heddle::sim::cudart;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  return api_call("cudaGetDeviceCount", [&](Call& call) {
    *count = call.rt.options.devices;
    if (*count == 0) refuse(cudaErrorNoDevice);
  });
}

cudaError_t cudaSetDevice(int device) {
  return api_call("cudaSetDevice", [&](Call& call) {
    require_device(call.rt, device);
    thread_state().device = device;
  });
}

cudaError_t cudaGetDevice(int* device) {
  return api_call("cudaGetDevice", [&](Call&) { *device = thread_state().device; });
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* prop, int device) {
  return api_call("cudaGetDeviceProperties", [&](Call& call) {
    require_device(call.rt, device);
    *prop = {};
    std::strncpy(prop->name, "heddle simulated GPU", sizeof prop->name - 1);
    const uint64_t host = static_cast<uint64_t>(::gethostid()), number = static_cast<uint64_t>(call.rt.options.first_device + device);
    std::memcpy(prop->uuid.bytes, &host, sizeof host);
    std::memcpy(prop->uuid.bytes + sizeof host, &number, sizeof number);
    prop->totalGlobalMem = call.rt.options.memory;
    prop->sharedMemPerBlock = kSharedPerBlock;
    prop->regsPerBlock = prop->regsPerMultiprocessor = kRegisters;
    prop->warpSize = 32;
    prop->maxThreadsPerBlock = kThreadsPerBlock;
    prop->maxThreadsDim[0] = prop->maxThreadsDim[1] = 1024;
    prop->maxThreadsDim[2] = 64;
    prop->maxGridSize[0] = 0x7fffffff;
    prop->maxGridSize[1] = prop->maxGridSize[2] = 65535;
    prop->major = call.rt.options.capability / 10;
    prop->minor = call.rt.options.capability % 10;
    prop->multiProcessorCount = call.rt.options.multiprocessors;
    prop->concurrentKernels = 1;
    prop->asyncEngineCount = 3;
    prop->unifiedAddressing = 1;
    prop->memoryBusWidth = 5120;
    prop->l2CacheSize = 50 << 20;
    prop->maxThreadsPerMultiProcessor = kThreadsPerMultiprocessor;
    prop->streamPrioritiesSupported = 1;
    prop->sharedMemPerMultiprocessor = kSharedPerMultiprocessor;
    prop->cooperativeLaunch = 1;
    prop->sharedMemPerBlockOptin = kSharedPerBlockOptIn;
    prop->maxBlocksPerMultiProcessor = kBlocksPerMultiprocessor;
    prop->reservedSharedMemPerBlock = kSharedReserved;
    prop->memoryPoolsSupported = 1;
    prop->clusterLaunch = 1;
  });
}

cudaError_t cudaDeviceGetAttribute(int* value, enum cudaDeviceAttr attr, int device) {
  return api_call("cudaDeviceGetAttribute", [&](Call& call) {
    require_device(call.rt, device);
    *value = attribute(call.rt, attr);
  });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* leastPriority, int* greatestPriority) {
  return api_call("cudaDeviceGetStreamPriorityRange", [&](Call&) {
    if (leastPriority) *leastPriority = 0;
    if (greatestPriority) *greatestPriority = -5;
  });
}

cudaError_t cudaDeviceCanAccessPeer(int* canAccessPeer, int device, int peerDevice) {
  return api_call("cudaDeviceCanAccessPeer", [&](Call& call) {
    require_device(call.rt, device);
    require_device(call.rt, peerDevice);
    *canAccessPeer = device != peerDevice;
  });
}

cudaError_t cudaDeviceEnablePeerAccess(int peerDevice, unsigned int flags) {
  return api_call("cudaDeviceEnablePeerAccess", [&](Call& call) {
    require_device(call.rt, peerDevice);
    if (flags != 0) refuse(cudaErrorInvalidValue, "cudaDeviceEnablePeerAccess: flags must be 0");
    if (peerDevice == thread_state().device) refuse(cudaErrorInvalidDevice, "cudaDeviceEnablePeerAccess: device ", peerDevice, " to itself");
    if (!call.rt.peers.insert({thread_state().device, peerDevice}).second) refuse(cudaErrorPeerAccessAlreadyEnabled);
  });
}

cudaError_t cudaDeviceDisablePeerAccess(int peerDevice) {
  return api_call("cudaDeviceDisablePeerAccess", [&](Call& call) {
    require_device(call.rt, peerDevice);
    if (call.rt.peers.erase({thread_state().device, peerDevice}) == 0) refuse(cudaErrorPeerAccessNotEnabled);
  });
}

cudaError_t cudaDeviceSynchronize(void) {
  return api_call("cudaDeviceSynchronize", [&](Call& call) {
    call.rt.forbid_during_capture(call.site);
    call.rt.wait_device(call.lock, thread_state().device);
  });
}

cudaError_t cudaDeviceReset(void) {
  Runtime& rt = runtime();
  std::unique_lock lock(rt.mutex);
  rt.reset(lock, heddle::sim::RuntimeOptions(rt.options));
  forget_errors();
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* driverVersion) {
  *driverVersion = kCudaVersion;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* runtimeVersion) {
  *runtimeVersion = kCudaVersion;
  return cudaSuccess;
}

// ---- errors ----

cudaError_t cudaGetLastError(void) {
  Runtime& rt = runtime();
  const std::lock_guard lock(rt.mutex);
  const cudaError_t last = take_last_error().code;
  return rt.sticky.code != cudaSuccess ? rt.sticky.code : last;
}

cudaError_t cudaPeekAtLastError(void) {
  Runtime& rt = runtime();
  const std::lock_guard lock(rt.mutex);
  return rt.sticky.code != cudaSuccess ? rt.sticky.code : peek_last_error().code;
}

const char* cudaGetErrorName(cudaError_t error) {
  return error_name(error);
}

// CUDA's words, and the report where this thread or the process has one for that code.
const char* cudaGetErrorString(cudaError_t error) {
  std::string report = last_report_of(error);
  {
    Runtime& rt = runtime();
    const std::lock_guard lock(rt.mutex);
    if (report.empty() && rt.sticky.code == error) report = rt.sticky.text;
  }
  if (error == cudaSuccess || report.empty()) return error_words(error);
  thread_local std::string text;
  text = heddle::concat(error_words(error), ": ", report);
  return text.c_str();
}

// ---- kernels ----

cudaError_t cudaFuncSetAttribute(const void* func, enum cudaFuncAttribute attr, int value) {
  return api_call("cudaFuncSetAttribute", [&](Call&) {
    if (!func) refuse(cudaErrorInvalidDeviceFunction);
    FunctionLimits& limits = function_limits()[func];
    switch (attr) {
      case cudaFuncAttributeMaxDynamicSharedMemorySize:
        if (value < 0 || value > kSharedPerBlockOptIn)
          refuse(cudaErrorInvalidValue, "dynamic shared memory of ", value, " bytes; at most ", kSharedPerBlockOptIn);
        limits.dynamic_shared = value;
        return;
      case cudaFuncAttributePreferredSharedMemoryCarveout:
        if (value < -1 || value > 100) refuse(cudaErrorInvalidValue, "a carveout of ", value, " percent");
        limits.carveout = value;
        return;
      case cudaFuncAttributeNonPortableClusterSizeAllowed: limits.large_clusters = value; return;
      default: refuse(cudaErrorInvalidValue, "cudaFuncSetAttribute: the simulated device has no attribute ", static_cast<int>(attr));
    }
  });
}

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes* attr, const void* func) {
  return api_call("cudaFuncGetAttributes", [&](Call& call) {
    if (!func) refuse(cudaErrorInvalidDeviceFunction);
    const FunctionLimits& limits = function_limits()[func];
    *attr = {};
    attr->maxThreadsPerBlock = kThreadsPerBlock;
    attr->ptxVersion = attr->binaryVersion = call.rt.options.capability;
    attr->maxDynamicSharedSizeBytes = limits.dynamic_shared;
    attr->preferredShmemCarveout = limits.carveout;
    attr->nonPortableClusterSizeAllowed = limits.large_clusters;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* numBlocks, const void* func, int blockSize, size_t dynamicSMemSize,
                                                                   unsigned int) {
  return api_call("cudaOccupancyMaxActiveBlocksPerMultiprocessor", [&](Call&) {
    if (!func) refuse(cudaErrorInvalidDeviceFunction);
    if (blockSize <= 0) refuse(cudaErrorInvalidValue, "a block of ", blockSize, " threads");
    const bool allowed = dynamicSMemSize <= static_cast<size_t>(function_limits()[func].dynamic_shared);
    *numBlocks = allowed ? static_cast<int>(blocks_per_multiprocessor(static_cast<uint64_t>(blockSize), dynamicSMemSize)) : 0;
  });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* numBlocks, const void* func, int blockSize, size_t dynamicSMemSize) {
  return cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(numBlocks, func, blockSize, dynamicSMemSize, cudaOccupancyDefault);
}

cudaError_t cudaOccupancyMaxActiveClusters(int* numClusters, const void* func, const cudaLaunchConfig_t* config) {
  return api_call("cudaOccupancyMaxActiveClusters", [&](Call& call) {
    if (!func) refuse(cudaErrorInvalidDeviceFunction);
    uint64_t cluster = 1;
    for (unsigned i = 0; i < config->numAttrs; ++i) {
      const auto& dims = config->attrs[i].val.clusterDim;
      if (config->attrs[i].id == cudaLaunchAttributeClusterDimension) cluster = uint64_t{dims.x} * dims.y * dims.z;
    }
    const dim3& block = config->blockDim;
    const uint64_t resident = static_cast<uint64_t>(call.rt.options.multiprocessors) *
                              blocks_per_multiprocessor(uint64_t{block.x} * block.y * block.z, config->dynamicSmemBytes);
    if (cluster == 0) refuse(cudaErrorInvalidClusterSize);
    *numClusters = static_cast<int>(resident / cluster);
  });
}

}  // extern "C"

namespace heddle::sim {

RuntimeOptions runtime_options() {
  Runtime& rt = runtime();
  const std::lock_guard lock(rt.mutex);
  return rt.options;
}

void reset_runtime(const RuntimeOptions& options) {
  Runtime& rt = runtime();
  std::unique_lock lock(rt.mutex);
  rt.reset(lock, options);
  forget_errors();
}

std::string runtime_report() {
  Runtime& rt = runtime();
  const std::lock_guard lock(rt.mutex);
  return rt.sticky.code != cudaSuccess ? rt.sticky.text : peek_last_error().text;
}

RuntimeCounters runtime_counters() {
  Runtime& rt = runtime();
  const std::lock_guard lock(rt.mutex);
  RuntimeCounters counters = rt.counters;
  counters.live_allocations = memory().live_count();
  return counters;
}

}  // namespace heddle::sim
