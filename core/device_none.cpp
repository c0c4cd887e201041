#include "core/device_cuda.h"
#include "kernels/api/check.h"

namespace heddle {

Runtime& cuda_runtime() {
  fail("device", "this build has no CUDA devices; configure with the preset cuda (or sim, which simulates one), or use --device cpu",
       ExitCode::no_device);
}

int cuda_device_count() {
  return 0;
}

}  // namespace heddle
