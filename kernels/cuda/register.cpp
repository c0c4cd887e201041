#include "kernels/cuda/register.h"

#include "kernels/api/host_kernels.h"

namespace heddle::kernels {

void register_cuda_kernels() {
  static const bool done = [] {
#if defined(HEDDLE_SIMULATED)
    if (only_host_kernels()) {
      register_host_kernels();
      return true;
    }
#endif
    cuda::register_adamw();
    cuda::register_attention();
    cuda::register_attention_bwd_sm80();
    cuda::register_attention_simt();
    cuda::register_dropout();
    cuda::register_embedding_backward();
    cuda::register_embedding_forward();
    cuda::register_matmul_sm90();
    cuda::register_matmul_sm80();
    cuda::register_matmul_simt();
    cuda::register_muon();
    cuda::register_norm();
    cuda::register_normalize();
    cuda::register_step_state();
#if defined(HEDDLE_SIMULATED)
    register_host_kernels();
#endif
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace heddle::kernels
