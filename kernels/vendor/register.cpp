#include "kernels/vendor/register.h"

#include "kernels/api/kernel.h"

namespace heddle::kernels {

void register_vendor_kernels() {
  vendor::register_cublaslt();
}

}  // namespace heddle::kernels
