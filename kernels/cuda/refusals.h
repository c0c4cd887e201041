// What every CUDA candidate refuses beyond its contract.
#pragma once

#include <initializer_list>

#include "kernels/api/kernel.h"

namespace heddle::kernels::cuda {

// `contract` broken, or an operand in f64: that is the CPU's, for gradient checks.
inline Refusal refused_on_gpu(const Refusal& contract, std::initializer_list<const View*> operands) {
  if (contract) return contract;
  for (const View* operand : operands) {
    if (*operand && operand->dtype == DType::f64) return refused("f32 and bf16 only, not ", *operand);
  }
  return {};
}

}  // namespace heddle::kernels::cuda
