// TMA and bulk copies: see ptx_kernels.h.
#include "tests/sim/ptx_device.cuh"
#include "tests/sim/ptx_kernels.h"

namespace heddle::test {
namespace {

template <int Rank>
__global__ void load_tile(const __grid_constant__ CUtensorMap map, Start start, uint32_t offset, uint32_t tile_bytes, uint32_t* out, uint32_t words) {
  int32_t at[Rank];
  for (int i = 0; i < Rank; ++i) at[i] = start.at[i];
  auto* shared = dyn_smem<uint32_t>();
  const uint32_t smem = ptx::smem_u32(shared), full = smem + words * 4;
  set_shared(shared, 0xEEEEEEEEu, words);
  if (threadIdx.x == 0) {
    ptx::tma_prefetch_descriptor(&map);
    ptx::tma_prefetch(&map, at);
    ptx::mbarrier_init(full, 1);
    ptx::fence_mbarrier_init();
  }
  ptx::fence_proxy_async_shared();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::mbarrier_arrive_expect_tx(full, tile_bytes);
    ptx::tma_load_hinted(smem + offset, &map, full, at, ptx::policy_evict_first());
  }
  ptx::mbarrier_wait(full, 0);
  dump_shared(out, shared, words);
}

template <int Rank>
__global__ void store_tile(const __grid_constant__ CUtensorMap map, Start start, const uint32_t* image, uint32_t words, bool add) {
  int32_t at[Rank];
  for (int i = 0; i < Rank; ++i) at[i] = start.at[i];
  auto* shared = dyn_smem<uint32_t>();
  fill_shared(shared, image, words);
  ptx::fence_proxy_async_shared();
  __syncthreads();
  if (threadIdx.x == 0) {
    if (add) {
      ptx::tma_reduce_add(&map, ptx::smem_u32(shared), at);
    } else {
      ptx::tma_store_hinted(&map, ptx::smem_u32(shared), at, ptx::policy_evict_first());
    }
    ptx::bulk_commit();
    ptx::bulk_wait_read<0>();
    ptx::bulk_wait<0>();
  }
}

}  // namespace

TileLoads* tile_loads(int rank) {
  switch (rank) {
    case 1: return load_tile<1>;
    case 2: return load_tile<2>;
    case 3: return load_tile<3>;
    case 4: return load_tile<4>;
    default: return load_tile<5>;
  }
}
TileStores* tile_stores(int rank) {
  switch (rank) {
    case 1: return store_tile<1>;
    case 2: return store_tile<2>;
    case 3: return store_tile<3>;
    case 4: return store_tile<4>;
    default: return store_tile<5>;
  }
}

__global__ void multicasts(const __grid_constant__ CUtensorMap map, uint32_t sender, uint16_t mask, uint32_t tile_bytes, uint32_t* out,
                           uint32_t words) {
  auto* shared = dyn_smem<uint32_t>();
  const uint32_t smem = ptx::smem_u32(shared), full = smem + words * 4, rank = ptx::cluster_rank();
  set_shared(shared, 0xEEEEEEEEu, words);
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(full, 1);
    ptx::fence_mbarrier_init();
    if ((mask >> rank & 1) != 0) ptx::mbarrier_arrive_expect_tx(full, tile_bytes);
  }
  ptx::fence_proxy_async_shared();
  ptx::cluster_arrive();
  ptx::cluster_wait();
  if (rank == sender && threadIdx.x == 0) ptx::tma_load_multicast(smem, &map, full, {0, 0}, mask);
  if ((mask >> rank & 1) != 0) ptx::mbarrier_wait_cluster(full, 0);
  dump_shared(out + rank * words, shared, words);
  ptx::cluster_arrive();
  ptx::cluster_wait();
}

__global__ void bulk_copies(const float* in, float* out, float* sum, uint32_t bytes) {
  auto* shared = dyn_smem<float>();
  const uint32_t smem = ptx::smem_u32(shared), full = smem + bytes;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(full, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_expect_tx(full, bytes);
    ptx::bulk_load(smem, in, bytes, full);
    ptx::mbarrier_arrive(full);
    ptx::mbarrier_wait(full, 0);
    ptx::bulk_store(out, smem, bytes);
    ptx::bulk_commit();
    ptx::bulk_reduce_add_f32(sum, smem, bytes);
    ptx::bulk_commit();
    ptx::bulk_wait_read<1>();
    ptx::bulk_wait<0>();
    ptx::mbarrier_inval(full);
  }
}

__global__ void unchecked_tile(const __grid_constant__ CUtensorMap map, uint32_t offset, bool rank_three) {
  auto* shared = dyn_smem<uint32_t>();
  const uint32_t smem = ptx::smem_u32(shared), full = smem + 8192;
  ptx::mbarrier_init(full, 1);
  ptx::fence_mbarrier_init();
  if (rank_three) {
    ptx::tma_load(smem + offset, &map, full, {0, 0, 0});
  } else {
    ptx::tma_load(smem + offset, &map, full, {0, 0});
  }
}

}  // namespace heddle::test
