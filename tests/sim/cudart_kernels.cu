#include "tests/sim/cudart_kernels.h"

#include "kernels/arch/platform.h"

namespace heddle::test {
namespace {

__global__ void add_kernel(float* x, int n, float by) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] += by;
}
__global__ void multiply_kernel(float* x, int n, float by) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < n) x[i] *= by;
}
__global__ void trap_kernel() {
  __trap();
}
__global__ void touch_kernel(float* x, size_t element) {
  x[element] = 1.0f;
}
__global__ void empty_kernel() {}

Stream on(cudaStream_t stream) {
  return {Device{DeviceType::cuda, 0}, stream};
}
unsigned blocks_for(int n) {
  return static_cast<unsigned>((n + 127) / 128);
}

}  // namespace

void add(float* x, int n, float by, cudaStream_t stream) {
  HEDDLE_LAUNCH(add_kernel, blocks_for(n), 128, 0, on(stream), x, n, by);
}
void multiply(float* x, int n, float by, cudaStream_t stream) {
  HEDDLE_LAUNCH(multiply_kernel, blocks_for(n), 128, 0, on(stream), x, n, by);
}
void trap(cudaStream_t stream) {
  HEDDLE_LAUNCH(trap_kernel, 1, 32, 0, on(stream));
}
void touch(float* x, size_t element, cudaStream_t stream) {
  HEDDLE_LAUNCH(touch_kernel, 1, 1, 0, on(stream), x, element);
}
void launch_blocks(unsigned blocks, unsigned threads, size_t shared_bytes, bool cooperative, cudaStream_t stream) {
  LaunchShape shape;
  shape.grid = blocks;
  shape.block = threads;
  shape.shared_bytes = shared_bytes;
  shape.cooperative = cooperative;
  HEDDLE_LAUNCH_AS(empty_kernel, shape, on(stream));
}
const void* some_kernel() {
  return reinterpret_cast<const void*>(&empty_kernel);
}

}  // namespace heddle::test
