// The nvcc half of platform.h.
#include <cooperative_groups.h>

#include <map>
#include <utility>

// HEDDLE_SHARED(float, tile, [256]) or HEDDLE_SHARED(int, flag): a variable of the block.
#define HEDDLE_SHARED(type, name, ...) __shared__ type name __VA_ARGS__

namespace heddle {

// The launch's dynamic shared memory; aligned to 1024 bytes, what the 128-byte swizzle asks for, in kernels without other shared memory.
template <class T = std::byte>
__device__ __forceinline__ T* dyn_smem() {
  extern __shared__ __align__(1024) unsigned char heddle_dynamic_shared_memory[];
  return reinterpret_cast<T*>(heddle_dynamic_shared_memory);
}

// Waits until pred() is true: the only way a kernel may wait for memory that another thread writes.
#ifdef HEDDLE_BOUNDED_WAITS
template <class Predicate>
__device__ __forceinline__ void spin_until(Predicate pred, const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  for (BoundedWait wait; !pred(); wait.check(WaitRecord::kNoMbarrier, 0, file, line)) __nanosleep(32);
}
#else
template <class Predicate>
__device__ __forceinline__ void spin_until(Predicate pred) {
  while (!pred()) __nanosleep(32);
}
#endif

// All threads of a cooperative launch.
__device__ __forceinline__ void grid_sync() {
  cooperative_groups::this_grid().sync();
}

#ifdef HEDDLE_BOUNDED_WAITS
// Internal linkage, like launch_kernel here: every source has a wait_record of its own.
static void tell_wait_record(int device) {
  static thread_local uint64_t told = 0;  // a bit for each device
  if (told >> device & 1) return;
  WaitRecord* const record = host_wait_record();
  check_cuda(cudaMemcpyToSymbol(wait_record, &record, sizeof record), "cudaMemcpyToSymbol of the wait record");
  kernels::about_device_errors = wait_report;
  told |= uint64_t{1} << device;
}
#define HEDDLE_LINKAGE static
#else
#define HEDDLE_LINKAGE
#endif

template <class... Params, class... Args>
HEDDLE_LINKAGE void launch_kernel(void (*kernel)(Params...), const char* name, const LaunchShape& shape, Stream stream, Args&&... args) {
#ifdef HEDDLE_BOUNDED_WAITS
  tell_wait_record(stream.device.index);
#endif
  const auto checked = [name](cudaError_t status) {
    if (status != cudaSuccess) check_cuda(status, concat("launch of ", name).c_str());
  };
  constexpr size_t kSharedWithoutAsking = 48 * 1024;
  if (shape.shared_bytes > kSharedWithoutAsking) {
    // The driver is told once for each kernel and device (and again when a launch wants more).
    static thread_local std::map<std::pair<const void*, int>, size_t> told;
    size_t& most = told[{reinterpret_cast<const void*>(kernel), stream.device.index}];
    if (shape.shared_bytes > most) {
      checked(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes)));
      most = shape.shared_bytes;
    }
  }
  cudaLaunchAttribute attributes[2];
  unsigned count = 0;
  if (shape.cluster.x * shape.cluster.y * shape.cluster.z > 1) {
    attributes[count].id = cudaLaunchAttributeClusterDimension;
    attributes[count].val.clusterDim.x = shape.cluster.x;
    attributes[count].val.clusterDim.y = shape.cluster.y;
    attributes[count].val.clusterDim.z = shape.cluster.z;
    ++count;
  }
  if (shape.cooperative) {
    attributes[count].id = cudaLaunchAttributeCooperative;
    attributes[count].val.cooperative = 1;
    ++count;
  }
  cudaLaunchConfig_t config = {};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = native(stream);
  config.attrs = attributes;
  config.numAttrs = count;
  checked(cudaLaunchKernelEx(&config, kernel, std::forward<Args>(args)...));
}

}  // namespace heddle
