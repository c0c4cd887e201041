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
    cuda::register_attention_decode();
    cuda::register_attention();
    cuda::register_attention_bwd_sm80();
    cuda::register_attention_simt();
    cuda::register_axpby();
    cuda::register_column_sum();
    cuda::register_cross_entropy();
    cuda::register_dropout();
    cuda::register_embedding_backward();
    cuda::register_embedding_forward();
    cuda::register_fill();
    cuda::register_map();
    cuda::register_matmul_sm90();
    cuda::register_matmul_sm80();
    cuda::register_matmul_simt();
    cuda::register_multiply();
    cuda::register_muon();
    cuda::register_norm_backward();
    cuda::register_norm_forward();
    cuda::register_normal();
    cuda::register_normalize();
    cuda::register_rope();
    cuda::register_sample();
    cuda::register_softmax();
    cuda::register_step_state();
    cuda::register_store_rows();
    cuda::register_sum();
    cuda::register_swiglu_sm90();
    cuda::register_swiglu();
#if defined(HEDDLE_SIMULATED)
    register_host_kernels();
#endif
    return true;
  }();
  static_cast<void>(done);
}

}  // namespace heddle::kernels
