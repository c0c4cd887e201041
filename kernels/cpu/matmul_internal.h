// The matmul candidates of the CPU; register_cpu_matmul() calls these in the order of preference.
#pragma once

namespace heddle::kernels::cpu {

void add_matmul_bf16();       // "amx" and "avx512_bf16": heddle's own, where the CPU has the instructions
void add_matmul_packed();     // "packed": heddle's own
void add_matmul_libraries();  // "onednn" when built with it, "eigen"

}  // namespace heddle::kernels::cpu
