# CONTRIBUTING.md, "Add an op": squash, fused forward and backward, with a kernel of its own.
new_file(kernels/api/squash.h squash_api.h)
new_file(kernels/cpu/squash.cpp squash_kernel.cpp)
new_file(core/ops/squash.cpp squash_op.cpp)
new_file(tests/core/squash_test.cpp squash_test.cpp)

add_line(kernels/api/slots.h [[#include "kernels/api/rope.h"]] [[#include "kernels/api/squash.h"]])
add_line(kernels/api/slots.h [[  slot(SoftmaxBackwardArgs, softmax_backward)      \]] [[  slot(SquashArgs, squash)                         \]])
add_line(core/ops/ops.h [[Tensor silu(const Tensor& x);]] [[Tensor squash(const Tensor& x, float cap);  // cap tanh(x / cap)]])

add_line(kernels/CMakeLists.txt [[    cpu/rope.cpp]] [[    cpu/squash.cpp]])
add_line(core/CMakeLists.txt [[    ops/shape.cpp]] [[    ops/squash.cpp]])
add_line(tests/core/CMakeLists.txt [[    recompute_test.cpp]] [[    squash_test.cpp]])
came_to(4 2 3 3)
