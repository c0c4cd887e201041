// The order of the CPU's matmul candidates: fastest first, as measured.
#include "kernels/api/matmul.h"

#include "kernels/cpu/matmul_internal.h"
#include "kernels/cpu/register_internal.h"

namespace heddle::kernels::cpu {

void register_cpu_matmul() {
  if (!matmul.candidates(DeviceType::cpu).empty()) return;
  add_matmul_amx();
  if (avx512_bf16_pays()) add_matmul_avx512_bf16();
  add_matmul_packed();
  add_matmul_libraries();
  if (!avx512_bf16_pays()) add_matmul_avx512_bf16();
}

}  // namespace heddle::kernels::cpu
