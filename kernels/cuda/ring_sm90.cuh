// The Hopper ring: stages of shared memory that one thread has TMA fill and that warps hand to wgmma.
//
//   full[s]    completes when the bytes of a fill have landed
//   empty[s]   completes when every reading warp has let go, in a cluster those of every block that the stage's fills go to
//
// Both sides walk the stages with a position of their own; the phase of a stage flips each time round. Stages are touched by asynchronous proxies
// alone, so what a reader says when it lets go orders no ordinary access: a release at the scope of the cluster would fence the whole GPU at every
// stage (ptx.h, mbarrier_arrive_async_reads).
#pragma once

#include "kernels/arch/ptx.h"

namespace heddle::kernels::cuda {

// A place in the ring.
template <int kStages>
struct RingPosition {
  int stage = 0;
  uint32_t phase = 0;
  __device__ __forceinline__ void advance() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1;
    }
  }
};

// kCluster: blocks whose fills land in each other's stages.
template <int kStages, int kCluster = 1>
class Ring {
 public:
  using Position = RingPosition<kStages>;
  static constexpr int kBytes = 16 * kStages;  // of barriers

  // At the shared address of kBytes, a multiple of 8.
  __device__ __forceinline__ explicit Ring(uint32_t barriers) : barriers_(barriers) {}

  // thread, before everything else. Then fence_mbarrier_init and a barrier of the block, or the cluster. readers: warps of a block.
  __device__ __forceinline__ void init(int readers) const {
    for (int stage = 0; stage < kStages; ++stage) {
      ptx::mbarrier_init(full(stage), 1);
      ptx::mbarrier_init(empty(stage), static_cast<uint32_t>(readers * kCluster));
    }
  }

  // thread, the one that fills. Waits until the stage is empty, in the peers as well; then issue(full) starts copies that complete on that barrier,
  // by `bytes` here whoever sends them.
  template <class Issue>
  __device__ __forceinline__ void fill(const Position& at, int bytes, const Issue& issue) const {
    ptx::mbarrier_wait(empty(at.stage), at.phase ^ 1);
    ptx::mbarrier_arrive_expect_tx(full(at.stage), static_cast<uint32_t>(bytes));
    issue(full(at.stage));
  }

  // thread, of a reading warp. Returns when the stage is full.
  __device__ __forceinline__ void wait(const Position& at) const { ptx::mbarrier_wait(full(at.stage), at.phase); }

  // warp, a reading one, when its asynchronous reads of the stage are done: one arrival at every block that fills it.
  __device__ __forceinline__ void release(int stage) const {
    const uint32_t lane = threadIdx.x % 32;
    if constexpr (kCluster > 1) {
      if (lane < kCluster) ptx::mbarrier_arrive_async_reads(ptx::mapa(empty(stage), lane));
    } else {
      if (lane == 0) ptx::mbarrier_arrive(empty(stage));
    }
  }

 private:
  __device__ __forceinline__ uint32_t full(int stage) const { return barriers_ + stage * 8; }
  __device__ __forceinline__ uint32_t empty(int stage) const { return full(stage) + kStages * 8; }

  uint32_t barriers_;
};

}  // namespace heddle::kernels::cuda
