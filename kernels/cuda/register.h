// The visible list of what kernels/cuda implements.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/api/kernel.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

namespace cuda {

void register_adamw();
void register_attention();
void register_attention_bwd_sm80();
void register_attention_simt();
void register_dropout();
void register_embedding_backward();
void register_embedding_forward();
void register_matmul_simt();
void register_matmul_sm80();
void register_matmul_sm90();
void register_muon();
void register_norm();
void register_normalize();
void register_step_state();

// out (one f32) (+)= scale * sum of x, or of its squares, in one launch; x (n) bf16, dense, 16-byte aligned. The same bits on every run and device.
// scratch: grid_sum_scratch(n) bytes, 16-byte aligned, zero when first used and zeroed again by the kernel where it must be; one call at a time.
struct GridSumArgs {
  View x;
  Sink out;
  float scale = 1;
  bool squares = false;
  std::span<std::byte> scratch;
};
size_t grid_sum_scratch(int64_t n);
void grid_sum(const GridSumArgs&, Stream);

}  // namespace cuda
}  // namespace heddle::kernels
