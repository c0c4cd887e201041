// A CUDA kernel that nvcc compiles for a GPU and any C++20 compiler for the simulated machine. Nothing here says which.
#include "examples/custom_kernel/smooth.h"

#include "kernels/arch/platform.h"

namespace {

constexpr int kThreads = 128;

template <bool kBarrier>
__global__ void smooth_kernel(const float* x, float* y, int n) {
  HEDDLE_SHARED(float, tile, [kThreads + 2]);  // the block's elements and one neighbour at each end
  const int thread = static_cast<int>(threadIdx.x), first = static_cast<int>(blockIdx.x) * kThreads, i = first + thread;
  const auto at = [&](int j) { return x[j < 0 ? 0 : j >= n ? n - 1 : j]; };
  tile[thread + 1] = at(i);
  if (thread == 0) tile[0] = at(first - 1);
  if (thread == kThreads - 1) tile[kThreads + 1] = at(i + 1);
  if constexpr (kBarrier) __syncthreads();  // neighbours' elements are there
  if (i < n) y[i] = (tile[thread] + tile[thread + 1] + tile[thread + 2]) / 3;
}

template <bool kBarrier>
void launch(const float* x, float* y, int n) {
  const auto blocks = static_cast<unsigned>((n + kThreads - 1) / kThreads);
  HEDDLE_LAUNCH((smooth_kernel<kBarrier>), blocks, kThreads, 0, heddle::Stream{}, x, y, n);
}

}  // namespace

void smooth(const float* x, float* y, int n) {
  launch<true>(x, y, n);
}

void smooth_without_barrier(const float* x, float* y, int n) {
  launch<false>(x, y, n);
}
