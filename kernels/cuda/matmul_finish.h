// What follows the main kernel of a matrix product: the parts of K are added and finished, the partial sums of columns added. Host only.
#pragma once

#include <functional>

#include "kernels/cuda/epilogue.cuh"
#include "kernels/cuda/matmul_finish_config.h"

namespace heddle::kernels::cuda {

// How a kernel goes about a product.
struct MatmulPlan {
  int splits = 1;
  int rows_per_part = 0;  // rows of c behind one partial sum of its columns
};

// Bytes of scratch that finish_matmul needs.
size_t matmul_scratch(const MatmulArgs&, const MatmulPlan&);

// Where the main kernel leaves its sums, and how far apart its parts of K lie, in f32 (0: there is one).
struct MatmulTarget {
  MatmulEpilogue epilogue;
  int64_t split_stride = 0;
};

// Calls main(target) to launch the main kernel (not at all where c has no elements), then launches what has to follow.
void run_matmul(const MatmulArgs&, const MatmulPlan&, Stream, const std::function<void(const MatmulTarget&)>& main);

}  // namespace heddle::kernels::cuda
