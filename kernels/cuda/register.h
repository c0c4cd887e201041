// The visible list of what kernels/cuda implements.
#pragma once

#include "kernels/api/kernel.h"

namespace heddle::kernels {

namespace cuda {

void register_adamw();
void register_attention();
void register_attention_bwd_sm80();
void register_attention_decode();
void register_attention_simt();
void register_axpby();
void register_column_sum();
void register_cross_entropy();
void register_dropout();
void register_embedding_backward();
void register_embedding_forward();
void register_fill();
void register_map();
void register_matmul_simt();
void register_matmul_sm80();
void register_matmul_sm90();
void register_multiply();
void register_muon();
void register_norm_backward();
void register_norm_forward();
void register_normal();
void register_normalize();
void register_rope();
void register_sample();
void register_softmax();
void register_step_state();
void register_store_rows();
void register_sum();
void register_swiglu();
void register_swiglu_sm90();

}  // namespace cuda
}  // namespace heddle::kernels
