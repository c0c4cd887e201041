// Waits that end: the build flavour HEDDLE_BOUNDED_WAITS of nvcc, for a kernel's first minutes on a GPU, where a forgotten arrival would hang the
// card.
//
// Every mbarrier wait and every spin gives up after two seconds. It writes who waited where into memory of the host, which outlives the trap that
// follows, and check_cuda() adds that to the error. No function is called on the way, so wgmma stays asynchronous and no register is spilled for it.
// (The simulated machine needs none of this: it sees that nobody can go on.)
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <string>

#include "kernels/api/check.h"
#include "kernels/api/fault.h"

namespace heddle {

// What the first wait to give up leaves behind.
struct WaitRecord {
  uint32_t taken;  // 1: one has
  uint32_t block[3], thread[3];
  uint32_t line;
  uint32_t mbarrier, parity;  // of an mbarrier: its shared address and the parity waited for; of a spin: kNoMbarrier
  char file[160];
  static constexpr uint32_t kNoMbarrier = 0xFFFFFFFFu;
};

// Pinned, mapped, one for the process; null where no memory could be had.
inline WaitRecord* host_wait_record() {
  static WaitRecord* const record = [] {
    void* memory = nullptr;
    if (cudaHostAlloc(&memory, sizeof(WaitRecord), cudaHostAllocMapped | cudaHostAllocPortable) != cudaSuccess)
      return static_cast<WaitRecord*>(nullptr);
    return new (memory) WaitRecord{};
  }();
  return record;
}

// "; block (3,0,0), thread (64,0,0) waited 2 s for parity 1 of the mbarrier at smem+229376 (gemm_sm90.cuh:104)"; "" when no wait has given up.
inline std::string wait_report() {
  const WaitRecord* record = host_wait_record();
  if (!record || const_cast<const volatile WaitRecord*>(record)->taken == 0) return "";
  const auto triple = [](const uint32_t(&i)[3]) { return concat("(", i[0], ",", i[1], ",", i[2], ")"); };
  const std::string what = record->mbarrier == WaitRecord::kNoMbarrier
                               ? "memory to change"
                               : concat("parity ", record->parity, " of the mbarrier at smem+", record->mbarrier);
  return concat("; block ", triple(record->block), ", thread ", triple(record->thread), " waited 2 s for ", what, " (", record->file, ":",
                record->line, ")");
}

#ifdef __CUDACC__
// Of this source: launch_kernel() sets it before the first launch on a device.
static __device__ WaitRecord* wait_record;

// One wait. expired() is asked after each try.
class BoundedWait {
 public:
  __device__ __forceinline__ void check(uint32_t mbarrier, uint32_t parity, const char* file, int line) {
    const uint64_t now = nanoseconds();
    if (now - start_ < 2'000'000'000) return;
    WaitRecord* record = wait_record;
    if (record != nullptr && atomicCAS_system(&record->taken, 0u, 1u) == 0) {
      record->block[0] = blockIdx.x, record->block[1] = blockIdx.y, record->block[2] = blockIdx.z;
      record->thread[0] = threadIdx.x, record->thread[1] = threadIdx.y, record->thread[2] = threadIdx.z;
      record->line = static_cast<uint32_t>(line);
      record->mbarrier = mbarrier;
      record->parity = parity;
#pragma unroll 1
      for (int i = 0; i + 1 < static_cast<int>(sizeof record->file) && file[i] != 0; ++i) record->file[i] = file[i];
      __threadfence_system();
    }
    __trap();
  }

 private:
  static __device__ __forceinline__ uint64_t nanoseconds() {
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
  }
  uint64_t start_ = nanoseconds();
};
#endif

}  // namespace heddle
