// What follows the main kernel of a matrix product: the parts of K are added and finished, the partial sums of columns added. Host only.
#pragma once

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/matmul_finish_config.h"

namespace heddle::kernels::cuda {

// How a kernel goes about a product.
struct MatmulPlan {
  int splits = 1;
  int rows_per_part = 0;  // rows of c behind one partial sum of its columns
};

// Bytes of scratch that both of these need.
size_t matmul_scratch(const MatmulArgs&, const MatmulPlan&);

// Where the main kernel leaves its sums, and how far apart its parts of K lie, in f32 (0: there is one).
struct MatmulTarget {
  MatmulEpilogue epilogue;
  int64_t split_stride = 0;
};
MatmulTarget matmul_target(const MatmulArgs&, const MatmulPlan&);

// Launches what has to follow the main kernel, which is not launched at all where c has no elements.
void finish_matmul(const MatmulArgs&, const MatmulPlan&, Stream);

}  // namespace heddle::kernels::cuda
