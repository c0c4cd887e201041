// The simulated half of platform.h: what it means without nvcc.
#include <string>
#include <tuple>

#include "kernels/sim/core/device.h"

// CUDA's qualifiers: its own headers define some of them for host compilers, as attributes these do not know.
#undef __global__
#undef __device__
#undef __host__
#undef __constant__
#undef __forceinline__
#undef __noinline__
#undef __launch_bounds__
#undef __grid_constant__
#undef __cluster_dims__
#undef __maxnreg__
#undef __shared__
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __cluster_dims__(...)
#define __maxnreg__(...)
#define __shared__ static_assert(false, "a kernel declares shared memory by HEDDLE_SHARED(type, name, [size]) or dyn_smem");

#define threadIdx (::heddle::sim::thread_index())
#define blockIdx (::heddle::sim::block_index())
#define blockDim (::heddle::sim::block_dim())
#define gridDim (::heddle::sim::grid_dim())
#define warpSize 32

#define HEDDLE_SHARED(type, name, ...)                                                            \
  using name##_heddle_type = type __VA_ARGS__;                                                    \
  static constinit ::heddle::sim::SharedVariable name##_heddle_place;                             \
  name##_heddle_type& name = *reinterpret_cast<name##_heddle_type*>(::heddle::sim::static_shared( \
      name##_heddle_place, sizeof(name##_heddle_type), alignof(name##_heddle_type), #name, {__FILE__, __LINE__, "__shared__"}))

namespace heddle {

template <class T = std::byte>
inline T* dyn_smem() {
  return reinterpret_cast<T*>(sim::dynamic_shared());
}

template <class Predicate>
inline void spin_until(Predicate pred, sim::Where where = sim::Where::here()) {
  while (!pred()) sim::spin(where.op("spin_until"));
}

// cooperative_groups' this_grid().sync(): all threads of a cooperative launch.
inline void grid_sync(sim::Where where = sim::Where::here()) {
  sim::grid_sync(where.op("grid_sync"));
}

namespace sim {
constexpr Index3 index3(const dim3& d) {
  return {d.x, d.y, d.z};
}
}  // namespace sim

template <class... Params, class... Args>
void launch_kernel(void (*kernel)(Params...), const char* name, const LaunchShape& shape, Stream stream, Args&&... args) {
  sim::Launch launch;
  launch.kernel = name;
  launch.geometry = {sim::index3(shape.grid), sim::index3(shape.block), sim::index3(shape.cluster)};
  launch.dynamic_shared = shape.shared_bytes;
  launch.cooperative = shape.cooperative;
  launch.body = [kernel, params = std::tuple<Params...>(std::forward<Args>(args)...)] { std::apply(kernel, params); };
  sim::submit(std::move(launch), stream.native);
}

}  // namespace heddle
