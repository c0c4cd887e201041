// Host side of proving_kernels.cu: the kernels of kernels/cuda in small and in production tiles, on device memory. No CUDA type shows here, so that
// the cases (proving_cases.cpp) are the same for the simulated machine and for a GPU.
#pragma once

#include <cstddef>

#include "kernels/api/attention.h"
#include "kernels/api/matmul.h"
#include "kernels/api/norm.h"
#include "kernels/api/reduce.h"

namespace heddle::test {

// ---- device memory; Error on failure ----
std::byte* device_allocate(size_t bytes);
void device_free(std::byte* data);
void copy_to_device(std::byte* to, const std::byte* from, size_t bytes);
void copy_to_host(std::byte* to, const std::byte* from, size_t bytes);  // after every kernel so far
int device_capability();                                                // 90: Hopper

// ---- kernels; the views of their arguments point to device memory ----
enum class Sm80Tile {
  small,   // 64 x 64 x 32, 3 stages
  deep_k,  // 64 x 64 x 64, 2 stages; forward only
  large,   // 128 x 256 x 32, 4 stages; forward and weight gradient
};
enum class Sm90Tile {
  small,    // 64 x 64, one consumer, 3 stages
  cluster,  // 128 x 128, two consumers, 3 stages, pairs of blocks share B
  tall,     // 128 x 64, one consumer with two wgmma of 64 rows, 2 stages; forward only
  large,    // 128 x 256, two consumers, 4 stages, pairs of blocks share B; forward only
};
// sm90: bf16 results forward and for input gradients, f32 for weight gradients, and other results where a tile is built with the whole epilogue; in
// parts of K, none of them empty, if asked to.
void gemm_sm80(Sm80Tile tile, const kernels::MatmulArgs& args);
void gemm_sm90(Sm90Tile tile, const kernels::MatmulArgs& args, int blocks, int splits = 1);
void gemm_simt(const kernels::MatmulArgs& args);  // 128 x 128, bf16 operands
void norm_rows(const kernels::NormForwardArgs& args, unsigned blocks);
// scratch: sum_scratch bytes; zeroed: 16.
void sum_up(const kernels::SumArgs& args);
size_t sum_scratch(const kernels::SumArgs& args);
void attention(const kernels::AttentionForwardArgs& args);
size_t attention_gradients_scratch(const kernels::AttentionBackwardArgs& args);
void attention_gradients(const kernels::AttentionBackwardArgs& args);

}  // namespace heddle::test
