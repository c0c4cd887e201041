// How a kernel notes data that it cannot use: see kernels/api/fault.h.
#pragma once

#include "kernels/api/fault.h"
#include "kernels/arch/ptx.h"

namespace heddle::kernels::cuda::thread {

// The first find stays; of several at once, one.
__device__ __forceinline__ void note(Fault* word, FaultKind kind, int64_t row, int64_t column, int64_t value, int64_t limit) {
  if (word == nullptr) return;
  if (ptx::atom_cas_acq_rel_gpu(reinterpret_cast<uint32_t*>(&word->kind), static_cast<uint32_t>(FaultKind::none), static_cast<uint32_t>(kind)) !=
      static_cast<uint32_t>(FaultKind::none))
    return;
  word->row = row;
  word->column = column;
  word->value = value;
  word->limit = limit;
}

}  // namespace heddle::kernels::cuda::thread
