// Kernels of the runtime's tests, behind functions that host code can call.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

namespace heddle::test {

void add(float* x, int n, float by, cudaStream_t stream);       // x[i] += by
void multiply(float* x, int n, float by, cudaStream_t stream);  // x[i] *= by
void trap(cudaStream_t stream);                                 // a kernel that gives up
void touch(float* x, size_t element, cudaStream_t stream);      // writes one element, wherever it is
void launch_blocks(unsigned blocks, unsigned threads, size_t shared_bytes, bool cooperative, cudaStream_t stream);  // an empty kernel
const void* some_kernel();                                                                                          // its address

}  // namespace heddle::test
