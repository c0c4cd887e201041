#include "kernels/cuda/register.h"

#if defined(HEDDLE_SIMULATED)
#include "kernels/sim/cudart/cudart.h"
#endif

namespace heddle::kernels {

void register_cuda_kernels() {
  static const bool done = [] {
#if defined(HEDDLE_SIMULATED)
    const sim::HostKernels host = sim::runtime_options().host_kernels;
    if (host == sim::HostKernels::only) {
      register_host_kernels();
      return true;
    }
#endif
    cuda::register_adamw();
    cuda::register_attention();
    cuda::register_dropout();
    cuda::register_embedding_backward();
    cuda::register_embedding_forward();
    cuda::register_matmul_sm90();
    cuda::register_matmul_sm80();
    cuda::register_muon();
    cuda::register_norm();
    cuda::register_normalize();
    cuda::register_step_state();
#if defined(HEDDLE_SIMULATED)
    if (host == sim::HostKernels::also) register_host_kernels();
#endif
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace heddle::kernels
