// The candidates of this folder: behind all others of their ops, so that none is taken unless it is asked for by name or preferred (Kernel::prefer).
#pragma once

namespace heddle::kernels::vendor {

void register_cublaslt();

// Lets go of the library, of what was planned and of what failed, as if the process had just begun. For tests.
void forget_cublaslt();

}  // namespace heddle::kernels::vendor
