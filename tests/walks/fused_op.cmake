# CONTRIBUTING.md, "Add an op": softcap, fused forward and backward, with a kernel of its own.
new_file(kernels/api/softcap.h softcap_api.h)
new_file(kernels/cpu/softcap.cpp softcap_kernel.cpp)
new_file(core/ops/softcap.cpp softcap_op.cpp)
new_file(tests/core/softcap_test.cpp softcap_test.cpp)

add_line(kernels/api/slots.h [[#include "kernels/api/rope.h"]] [[#include "kernels/api/softcap.h"]])
add_line(kernels/api/slots.h [[  slot(SoftmaxBackwardArgs, softmax_backward)      \]] [[  slot(SoftcapArgs, softcap)                       \]])
add_line(core/ops/ops.h [[Tensor silu(const Tensor& x);]] [[Tensor softcap(const Tensor& x, float cap);  // cap tanh(x / cap)]])

add_line(kernels/CMakeLists.txt [[    cpu/rope.cpp]] [[    cpu/softcap.cpp]])
add_line(core/CMakeLists.txt [[    ops/shape.cpp]] [[    ops/softcap.cpp]])
add_line(tests/core/CMakeLists.txt [[    recompute_test.cpp]] [[    softcap_test.cpp]])
came_to(4 2 3 3)
