// Kernels that misuse the machine, one fault each.
#include "kernels/arch/platform.h"
#include "tests/sim/core_kernels.h"

namespace heddle::test {

namespace {

using sim::Site;
using sim::Where;

constexpr unsigned kAll = 0xffffffffu;

Site here(const char* what, Where where = Where::here()) {
  return where.op(what);
}

const sim::AsyncTask kNothing = [](sim::Agent&) {};

__device__ uint32_t address(const void* p, Where where = Where::here()) {
  return sim::shared_address(p, where.op("cvta"));
}

__device__ int deeper(int n) {
  volatile int here[64] = {n};
  return n == 0 ? 0 : deeper(n - 1) + here[n % 64];
}

// end: 0, which the compiler does not know, or it would keep that element alone.
__global__ void large_frame_kernel(unsigned end, float* out) {
  volatile int large[1 << 20];
  large[end] = 1;
  *out = static_cast<float>(large[end]);
}

__global__ void misbehave_kernel(Fault fault) {
  HEDDLE_SHARED(uint64_t, barrier, [2]);
  HEDDLE_SHARED(float, buffer, [64]);
  const unsigned i = threadIdx.x, lane = i % 32;
  const auto init = [&](uint32_t count) {
    if (i == 0) {
      sim::mbarrier_init(address(barrier), count, here("mbarrier.init"));
      sim::mbarrier_init_fence(here("fence.mbarrier_init"));
    }
    __syncthreads();
  };
  switch (fault) {
    case Fault::none: __syncthreads(); break;
    case Fault::missing_arrive:
      if (i < 64) sim::barrier_sync(3, 128, here("bar.sync"));
      break;
    case Fault::divergent_barrier:
      if (i < 64)
        __syncthreads();
      else
        __syncthreads();  // another line
      break;
    case Fault::divergent_shuffle:
      if (lane < 16) buffer[lane] = __shfl_xor_sync(kAll, 1.0f, 1);
      break;
    case Fault::other_collective:
      if (lane < 16)
        buffer[lane] = __shfl_xor_sync(kAll, 1.0f, 1);
      else
        __syncwarp();
      break;
    case Fault::lane_not_in_mask: __syncwarp(0x0000fffeu); break;
    case Fault::returned_lane:
      if (lane == 7) return;
      __syncwarp();
      break;
    case Fault::shuffle_from_outside:
      if (lane < 16) buffer[lane] = __shfl_sync(0x0000ffffu, 1.0f, 20);
      break;
    case Fault::barrier_count: sim::barrier_sync(1, i < 32 ? 64 : 96, here("bar.sync")); break;
    case Fault::barrier_id: sim::barrier_sync(16, 64, here("bar.sync")); break;
    case Fault::mbarrier_uninitialised: sim::mbarrier_wait(address(barrier), 0, here("mbarrier.try_wait")); break;
    case Fault::mbarrier_twice:
      init(1);
      if (i == 0) sim::mbarrier_init(address(barrier), 1, here("mbarrier.init"));
      break;
    case Fault::mbarrier_overwritten:
      init(1);
      if (i == 0) {
        barrier[0] = 5;
        sim::mbarrier_arrive(address(barrier), 1, 0, sim::Releases::all, here("mbarrier.arrive"));
      }
      break;
    case Fault::mbarrier_misaligned:
      if (i == 0) sim::mbarrier_init(address(barrier) + 4, 1, here("mbarrier.init"));
      break;
    case Fault::mbarrier_arrivals:
      init(2);
      if (i == 0) sim::mbarrier_arrive(address(barrier), 3, 0, sim::Releases::all, here("mbarrier.arrive"));
      break;
    case Fault::mbarrier_bytes:
      init(1);
      if (i == 0) sim::mbarrier_arrive(address(barrier), 1, 64, sim::Releases::all, here("mbarrier.arrive.expect_tx"));
      sim::mbarrier_wait(address(barrier), 0, here("mbarrier.try_wait"));
      break;
    case Fault::mbarrier_unfenced:
      if (i == 0) {
        sim::mbarrier_init(address(barrier), 1, here("mbarrier.init"));
        sim::issue_on_mbarrier(address(barrier), 0, kNothing, here("cp.async.bulk"));
      }
      break;
    case Fault::copy_misaligned: sim::copy_async(buffer + 1, &kNothing, 16, 16, here("cp.async")); break;
    case Fault::shared_too_large: {
      HEDDLE_SHARED(float, large, [12 * 1024]);
      large[i] = 0;
      break;
    }
    case Fault::address_outside: sim::shared_pointer(address(buffer) + 64 * 4 - 4, 8, here("ld.shared.v2")); break;
    case Fault::incomplete_warpgroup:
      if (i >= 128) sim::collect_warpgroup(nullptr, nullptr, here("wgmma.fence"));
      break;
    case Fault::bulk_unread:
      if (i == 0) {
        sim::issue_bulk(kNothing, kNothing, here("cp.async.bulk"));
        sim::bulk_commit(here("cp.async.bulk.commit_group"));
      }
      break;
    case Fault::cluster_twice:
      sim::cluster_arrive(true, here("barrier.cluster.arrive"));
      sim::cluster_arrive(true, here("barrier.cluster.arrive"));
      break;
    case Fault::trap: __trap();
    case Fault::spin_for_ever:
      if (i < 64) buffer[i] = 0;
      __syncthreads();
      spin_until([&] { return buffer[0] == 1.0f; });
      break;
    case Fault::throws_number:
      if (i == 3) throw 42;
      break;
    case Fault::null_pointer:
      if (i == 3) *static_cast<volatile float*>(nullptr) = 1.0f;
      break;
    case Fault::large_frame: break;  // has a kernel of its own
    case Fault::deep_recursion:
      if (i == 3) buffer[0] = static_cast<float>(deeper(100'000));
      break;
  }
}

}  // namespace

void misbehave(Fault fault) {
  if (fault == Fault::large_frame) {
    float out = 0;
    HEDDLE_LAUNCH(large_frame_kernel, 1, 1, 0, Stream{}, 0u, &out);
    return;
  }
  const unsigned threads = fault == Fault::incomplete_warpgroup ? 160 : 128;
  HEDDLE_LAUNCH(misbehave_kernel, 1, threads, 0, Stream{}, fault);
}

}  // namespace heddle::test
