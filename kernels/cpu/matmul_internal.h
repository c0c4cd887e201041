// The matmul candidates of the CPU; register_cpu_matmul() calls these in the order of preference.
#pragma once

namespace heddle::kernels::cpu {

void add_matmul_amx();          // "amx", and
void add_matmul_avx512_bf16();  // "avx512_bf16": heddle's own for bf16, where the CPU has the instructions
bool avx512_bf16_pays();        // on this CPU
void add_matmul_packed();       // "packed": heddle's own
void add_matmul_libraries();    // "onednn" when built with it, "eigen"

}  // namespace heddle::kernels::cpu
