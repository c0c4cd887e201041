// The Ampere ring: stages of shared memory that a block fills by cp.async and reads itself. One stage is read while the copies of the next kStages -
// 1 are on their way; each fill is one group of copies, empty or not, because the waits count groups.
#pragma once

#include "kernels/arch/ptx.h"

namespace heddle::kernels::cuda {

template <int kStages, int kStageBytes>
class CopyRing {
 public:
  static_assert(kStages >= 2);

  // Stages lie at shared address `base`, one after the other.
  __device__ __forceinline__ explicit CopyRing(uint32_t base) : base_(base) {}

  // block. Starts the first kStages - 1 fills and waits for the first: copy(shared address) starts the copies of the tile after the one before, or
  // none when there is no more.
  template <class Copy>
  __device__ __forceinline__ void begin(const Copy& copy) {
#pragma unroll
    for (int stage = 0; stage < kStages - 1; ++stage) start(stage, copy);
    turn();
  }

  // block, once before each advance(): starts one more fill, of the stage that was left last.
  template <class Copy>
  __device__ __forceinline__ void refill(const Copy& copy) {
    start(write_, copy);
  }

  // block. Returns when the stage after this one is here for all, and this one has been read by all.
  __device__ __forceinline__ void turn() const {
    ptx::cp_async_wait<kStages - 2>();
    __syncthreads();
  }

  __device__ __forceinline__ uint32_t stage() const {
    return base_ + read_ * kStageBytes;
  }
  __device__ __forceinline__ uint32_t next_stage() const {
    return base_ + after(read_) * kStageBytes;
  }
  __device__ __forceinline__ void advance() {
    write_ = read_;
    read_ = after(read_);
  }

 private:
  template <class Copy>
  __device__ __forceinline__ void start(int stage, const Copy& copy) const {
    copy(base_ + stage * kStageBytes);
    ptx::cp_async_commit();
  }
  __device__ static __forceinline__ int after(int stage) {
    return stage + 1 == kStages ? 0 : stage + 1;
  }

  uint32_t base_;
  int read_ = 0, write_ = kStages - 1;
};

}  // namespace heddle::kernels::cuda
