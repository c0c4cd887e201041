// Barriers and clusters: see ptx_kernels.h.
#include "tests/sim/ptx_device.cuh"
#include "tests/sim/ptx_kernels.h"

namespace heddle::test {

__global__ void pipeline(const uint32_t* in, uint32_t tiles, uint32_t stages, uint32_t consumers, uint32_t* out) {
  auto* shared = dyn_smem<uint32_t>();
  const uint32_t smem = ptx::smem_u32(shared), full = smem + stages * 128, empty = full + stages * 8, warp = threadIdx.x / 32,
                 lane = threadIdx.x % 32;
  if (threadIdx.x == 0) {
    for (uint32_t s = 0; s < stages; ++s) {
      ptx::mbarrier_init(full + 8 * s, 1);
      ptx::mbarrier_init(empty + 8 * s, consumers);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  uint32_t stage = 0, phase = 0;
  for (uint32_t t = 0; t < tiles; ++t) {
    if (warp == 0) {
      if (ptx::elect_one()) {
        ptx::mbarrier_wait(empty + 8 * stage, phase ^ 1);
        ptx::mbarrier_arrive_expect_tx(full + 8 * stage, 128);
        ptx::bulk_load(smem + stage * 128, in + t * 32, 128, full + 8 * stage);
      }
      ptx::warp_sync();
    } else {
      ptx::mbarrier_wait(full + 8 * stage, phase);
      out[(t * consumers + warp - 1) * 32 + lane] = shared[stage * 32 + lane] + warp;
      ptx::warp_sync();
      if (lane == 0) ptx::mbarrier_arrive(empty + 8 * stage);
    }
    if (++stage == stages) {
      stage = 0;
      phase ^= 1;
    }
  }
}

__global__ void ring(const uint4* in, uint32_t* out) {
  auto* shared = dyn_smem<uint32_t>();
  const uint32_t smem = ptx::smem_u32(shared), given = smem + 64, loaded = smem + 80, rank = ptx::cluster_rank(), size = ptx::cluster_size();
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(smem, 3);
    ptx::fence_mbarrier_init();
  }
  ptx::cluster_arrive_relaxed();
  ptx::cluster_wait();
  if (threadIdx.x == 0) {
    const uint32_t next = (rank + 1) % size;
    ptx::st_cluster(ptx::mapa(given, next), kGift + rank);
    ptx::bulk_load(loaded, in + rank, 16, smem);
    ptx::mbarrier_arrive_cluster(ptx::mapa(smem, next));
    ptx::mbarrier_arrive_async_reads(ptx::mapa(smem, next));
    ptx::mbarrier_arrive_expect_tx_cluster(ptx::mapa(smem, next), 16);
    ptx::mbarrier_wait_cluster(smem, 0);
    out[rank] = ptx::ld_cluster(given);
    out[size + rank] = ptx::mbarrier_test(smem, 0) ? 1 : 0;
    out[2 * size + rank] = ptx::mbarrier_test(smem, 1) ? 1 : 0;
    out[3 * size + rank] = shared[20];
  }
  ptx::cluster_arrive();
  ptx::cluster_wait();
}

__global__ void __launch_bounds__(256, 1) fences_and_registers(uint32_t* out) {
  ptx::griddepcontrol_wait();
  if (threadIdx.x < 128) {
    ptx::setmaxnreg_dec<40>();
  } else {
    ptx::setmaxnreg_inc<232>();
  }
  ptx::fence_cta();
  ptx::fence_cluster();
  ptx::fence_gpu();
  ptx::fence_proxy_async();
  ptx::fence_proxy_async_global();
  ptx::griddepcontrol_launch_dependents();
  out[threadIdx.x] = threadIdx.x;
}

namespace {

template <BarrierMisuse Kind>
__global__ void misuse(uint32_t* out) {
  const uint32_t smem = ptx::smem_u32(dyn_smem<uint32_t>());
  if constexpr (Kind == BarrierMisuse::zero_count) ptx::mbarrier_init(smem, 0);
  if constexpr (Kind == BarrierMisuse::misaligned) ptx::mbarrier_init(smem + 4, 1);
  if constexpr (Kind == BarrierMisuse::uninitialised) ptx::mbarrier_arrive(smem);
  if constexpr (Kind == BarrierMisuse::too_many_arrivals) {
    ptx::mbarrier_init(smem, 1);
    ptx::mbarrier_expect_tx(smem, 16);  // the bytes never come, so the phase stays
    ptx::mbarrier_arrive(smem);
    ptx::mbarrier_arrive(smem);
  }
  if constexpr (Kind == BarrierMisuse::deadlock) {
    ptx::mbarrier_init(smem, 1);
    ptx::mbarrier_wait(smem, 0);
  }
  if constexpr (Kind == BarrierMisuse::invalidated) {
    for (int i = 0; i < 2; ++i) {
      ptx::mbarrier_init(smem, 1);
      ptx::mbarrier_inval(smem);
    }
    ptx::mbarrier_arrive(smem);
  }
  if constexpr (Kind == BarrierMisuse::unfenced) {
    ptx::mbarrier_init(smem, 1);
    ptx::mbarrier_arrive_expect_tx(smem, 16);
    ptx::bulk_load(smem + 16, out, 16, smem);
    ptx::mbarrier_wait(smem, 0);
  }
  if constexpr (Kind == BarrierMisuse::half_a_warpgroup) {
    if (threadIdx.x < 64) ptx::setmaxnreg_dec<40>();
  }
  if constexpr (Kind == BarrierMisuse::peer_address) {
    ptx::st128_shared(ptx::mapa(smem, 1 - ptx::cluster_rank()), uint4{1, 2, 3, 4});
  }
  if constexpr (Kind == BarrierMisuse::peer_mbarrier) ptx::mbarrier_arrive(ptx::mapa(smem, 1 - ptx::cluster_rank()));
  if constexpr (Kind == BarrierMisuse::rank_beyond) *out = ptx::mapa(smem, ptx::cluster_size());
}

}  // namespace

Misused* misused(BarrierMisuse kind) {
  switch (kind) {
    case BarrierMisuse::uninitialised: return misuse<BarrierMisuse::uninitialised>;
    case BarrierMisuse::zero_count: return misuse<BarrierMisuse::zero_count>;
    case BarrierMisuse::too_many_arrivals: return misuse<BarrierMisuse::too_many_arrivals>;
    case BarrierMisuse::misaligned: return misuse<BarrierMisuse::misaligned>;
    case BarrierMisuse::deadlock: return misuse<BarrierMisuse::deadlock>;
    case BarrierMisuse::invalidated: return misuse<BarrierMisuse::invalidated>;
    case BarrierMisuse::unfenced: return misuse<BarrierMisuse::unfenced>;
    case BarrierMisuse::half_a_warpgroup: return misuse<BarrierMisuse::half_a_warpgroup>;
    case BarrierMisuse::peer_address: return misuse<BarrierMisuse::peer_address>;
    case BarrierMisuse::peer_mbarrier: return misuse<BarrierMisuse::peer_mbarrier>;
    default: return misuse<BarrierMisuse::rank_beyond>;
  }
}

}  // namespace heddle::test
