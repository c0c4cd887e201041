// Pairs of kernels for the check flavour: right, and with one ordering left out; what an instruction says of its own accesses is what finds it.
#include "tests/sim/ptx_device.cuh"
#include "tests/sim/ptx_kernels.h"

namespace heddle::test {
namespace {

// Each `wrong` is uniform over the block. Shared memory: 4096 bytes of data, an mbarrier behind.

// Another warp's stores, read by ldmatrix.
__device__ void ldmatrix_of_stores(bool wrong, uint32_t* shared, uint32_t* out) {
  set_shared(shared, 0, 256);  // initialised, so that what is left to find is the race
  __syncthreads();
  for (uint32_t i = 0; i < 4; ++i) shared[threadIdx.x * 4 + i] = i;
  if (!wrong) __syncthreads();
  uint32_t r[4];
  ptx::ldmatrix_x4(r, ptx::smem_u32(shared) + 16 * (63 - threadIdx.x));
  out[threadIdx.x] = r[0];
}

// What stmatrix wrote, read by other lanes of the same warp.
__device__ void stmatrix_then_load(bool wrong, uint32_t* shared, uint32_t* out) {
  set_shared(shared, 0, 256);
  __syncthreads();
  const uint32_t r[4] = {1, 2, 3, 4};
  const uint32_t own = threadIdx.x / 32 * 512;
  ptx::stmatrix_x4(ptx::smem_u32(shared) + own + 16 * (threadIdx.x % 32), r);
  if (!wrong) ptx::warp_sync();
  out[threadIdx.x] = shared[own / 4 + threadIdx.x % 32 * 4];
  out[threadIdx.x] += shared[own / 4 + 124 - threadIdx.x % 32 * 4];
}

// A whole-warp read through ldmatrix, then a store by one lane over what another lane's address named.
__device__ void store_after_ldmatrix(bool wrong, uint32_t* shared, uint32_t* out) {
  shared[threadIdx.x * 4] = shared[threadIdx.x * 4 + 1] = shared[threadIdx.x * 4 + 2] = shared[threadIdx.x * 4 + 3] = 1;
  __syncthreads();
  uint32_t r[4];
  ptx::ldmatrix_x4(r, ptx::smem_u32(shared) + 16 * threadIdx.x);
  if (!wrong) ptx::warp_sync();
  shared[(threadIdx.x ^ 1) * 4] = 2;
  out[threadIdx.x] = r[0];
}

// 16-byte accesses of different threads.
__device__ void wide_shared(bool wrong, uint32_t* shared, uint32_t* out) {
  const uint32_t smem = ptx::smem_u32(shared);
  set_shared(shared, 0, 256);
  __syncthreads();
  ptx::st128_shared(smem + 16 * threadIdx.x, uint4{1, 2, 3, threadIdx.x});
  if (!wrong) __syncthreads();
  out[threadIdx.x] = ptx::ld128_shared(smem + 16 * (63 - threadIdx.x)).w;
}

// The same in global memory.
__device__ void wide_global(bool wrong, uint32_t* shared, uint32_t* out) {
  ptx::st128(out + 4 * threadIdx.x, uint4{1, 2, 3, 4});
  if (!wrong) __syncthreads();
  shared[threadIdx.x] = ptx::ld128(out + 4 * (63 - threadIdx.x)).w;
}

// 8-byte stores, 4-byte loads.
__device__ void narrow_shared(bool wrong, uint32_t* shared, uint32_t* out) {
  set_shared(shared, 0, 128);
  __syncthreads();
  ptx::st64_shared(ptx::smem_u32(shared) + 8 * threadIdx.x, uint2{1, 2});
  if (!wrong) __syncthreads();
  out[threadIdx.x] = shared[127 - 2 * threadIdx.x];
}

// cp.async of another thread, which has waited for it.
__device__ void async_copy(bool wrong, uint32_t* shared, uint32_t* out) {
  set_shared(shared, 0, 256);
  __syncthreads();
  ptx::cp_async<16>(ptx::smem_u32(shared) + 16 * threadIdx.x, out + 4 * threadIdx.x);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  if (!wrong) __syncthreads();
  shared[512 + threadIdx.x] = shared[4 * (63 - threadIdx.x)];
}

// A bulk load whose target is read, or whose source is overwritten, before its mbarrier is waited for.
__device__ void bulk_loads(bool read_early, bool write_early, uint32_t* shared, uint32_t* out) {
  const uint32_t smem = ptx::smem_u32(shared), full = smem + 4096;
  set_shared(shared, 0, 256);
  ptx::fence_proxy_async_shared();
  __syncthreads();
  if (threadIdx.x != 0) return;
  ptx::mbarrier_init(full, 1);
  ptx::fence_mbarrier_init();
  ptx::mbarrier_arrive_expect_tx(full, 1024);
  ptx::bulk_load(smem, out, 1024, full);
  if (read_early) shared[512] = shared[5];
  if (write_early) out[5] = 1;
  ptx::mbarrier_wait(full, 0);
  shared[512] = shared[5];
  out[5] = 1;
}

// A bulk load of what ordinary stores have just written to global memory.
__device__ void bulk_source_written(bool no_proxy_fence, uint32_t* shared, uint32_t* out) {
  const uint32_t smem = ptx::smem_u32(shared), full = smem + 4096;
  if (threadIdx.x != 0) return;
  out[5] = 1;
  if (!no_proxy_fence) ptx::fence_proxy_async_global();
  ptx::mbarrier_init(full, 1);
  ptx::fence_mbarrier_init();
  ptx::mbarrier_arrive_expect_tx(full, 1024);
  ptx::bulk_load(smem, out, 1024, full);
  ptx::mbarrier_wait(full, 0);
}

// Global memory that a tile is loaded from and stored to, by two operations of which the second does not wait for the first.
__device__ void tile_overwritten(bool wrong, const CUtensorMap& map, uint32_t* shared) {
  const uint32_t smem = ptx::smem_u32(shared), full = smem + 4096;
  set_shared(shared + 512, 1, 512);
  ptx::fence_proxy_async_shared();
  __syncthreads();
  if (threadIdx.x != 0) return;
  ptx::mbarrier_init(full, 1);
  ptx::fence_mbarrier_init();
  ptx::mbarrier_arrive_expect_tx(full, 2048);
  ptx::tma_load(smem, &map, full, {0, 0});
  if (!wrong) ptx::mbarrier_wait(full, 0);
  ptx::tma_store(&map, smem + 2048, {0, 0});
  ptx::bulk_commit();
  ptx::bulk_wait<0>();
  ptx::mbarrier_wait(full, 0);
}

// What a bulk store or sum writes, read when only its source has been waited for.
__device__ void bulk_writes(bool wrong, bool add, uint32_t* shared, uint32_t* out) {
  const uint32_t smem = ptx::smem_u32(shared);
  set_shared(shared, 0, 256);
  ptx::fence_proxy_async();
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (add) {
    ptx::bulk_reduce_add_f32(reinterpret_cast<float*>(out), smem, 1024);
  } else {
    ptx::bulk_store(out, smem, 1024);
  }
  ptx::bulk_commit();
  ptx::bulk_wait_read<0>();
  if (!wrong) ptx::bulk_wait<0>();
  shared[512] = out[5];
  ptx::bulk_wait<0>();
}

// Two blocks of a cluster, each reading what the other wrote into its shared memory. Wrong: the barrier between orders nothing.
__device__ void cluster_words(bool wrong, uint32_t* shared, uint32_t* out) {
  const uint32_t word = ptx::smem_u32(shared) + 4 * threadIdx.x, rank = ptx::cluster_rank();
  shared[threadIdx.x] = 0;
  ptx::cluster_arrive();
  ptx::cluster_wait();
  ptx::st_cluster(ptx::mapa(word, 1 - rank), threadIdx.x);
  wrong ? ptx::cluster_arrive_relaxed() : ptx::cluster_arrive();
  ptx::cluster_wait();
  out[32 * rank + threadIdx.x] = ptx::ld_cluster(ptx::mapa(word, rank));
  ptx::cluster_arrive();
  ptx::cluster_wait();
}

// Each of two blocks writes four words; the last to come has a bulk load read the other's. Relaxed atomics between fences pass on the order, and that
// the writer's proxy fence has been.
__device__ void bulk_source_of_other_block(bool no_proxy_fence, uint32_t* shared, uint32_t* out) {
  if (threadIdx.x != 0) return;
  const uint32_t smem = ptx::smem_u32(shared), full = smem + 4096;
  for (uint32_t i = 0; i < 4; ++i) out[4 * blockIdx.x + i] = i;
  if (!no_proxy_fence) ptx::fence_proxy_async_global();
  ptx::fence_gpu();
  const bool last = ptx::atom_add(out + 128, 1) == 1;
  ptx::fence_gpu();
  if (!last) return;
  ptx::mbarrier_init(full, 1);
  ptx::fence_mbarrier_init();
  ptx::mbarrier_arrive_expect_tx(full, 16);
  ptx::bulk_load(smem, out + 4 * (1 - blockIdx.x), 16, full);
  ptx::mbarrier_wait(full, 0);
}

// Each of two blocks, or of two warps, writes its word; the last to come reads the other's. counter, flags: how it knows. Wrong: by relaxed
// operations alone, or by a fence of too small a scope, on one side.
template <PtxRace Kind>
__device__ void last_of_two(bool wrong, uint32_t* out) {
  if (threadIdx.x % 32 != 0) return;
  const uint32_t who = Kind == PtxRace::fences_of_block ? threadIdx.x / 32 : blockIdx.x, other = 1 - who;
  uint32_t *counter = out + 8, *flags = out + 16;
  const auto fence = [](bool enough) {
    if (Kind == PtxRace::fences_of_grid) enough ? ptx::fence_gpu() : ptx::fence_cta();
    if (Kind == PtxRace::fences_of_cluster) enough ? ptx::fence_cluster() : ptx::fence_cta();
    if (Kind == PtxRace::fences_of_block && enough) ptx::fence_cta();
  };
  out[who] = 1;
  bool last = false;
  if (Kind >= PtxRace::fences_of_grid) {
    fence(!wrong || Kind == PtxRace::fences_of_cluster);
    last = ptx::atom_add(counter, 1) == 1;
    fence(!wrong || Kind == PtxRace::fences_of_grid);
  } else if (wrong) {
    last = ptx::atom_add(counter, 1) == 1;
  } else if (Kind == PtxRace::add_acq_rel) {
    last = ptx::atom_add_acq_rel_gpu(counter, 1) == 1;
  } else if (Kind == PtxRace::cas_acq_rel) {
    last = ptx::atom_cas_acq_rel_gpu(counter, 0, 1) == 1;
  } else if (Kind == PtxRace::red_release) {
    ptx::red_add_release_gpu(flags, 1);
    last = ptx::atom_add(counter, 1) == 1 && ptx::ld_acquire_gpu(flags) == 2;
  } else {
    ptx::st_release_gpu(flags + who, 1);
    last = ptx::atom_add(counter, 1) == 1 && ptx::ld_acquire_gpu(flags + other) == 1;
  }
  if (last) out[32] = out[other];
}

// A tile that TMA brings, read without waiting for its mbarrier.
__device__ void tile_not_waited_for(bool wrong, const CUtensorMap& map, uint32_t* shared, uint32_t* out) {
  const uint32_t smem = ptx::smem_u32(shared), full = smem + 4096;
  set_shared(shared, 0, 512);
  ptx::fence_proxy_async_shared();
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(full, 1);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::mbarrier_arrive_expect_tx(full, 2048);
    ptx::tma_load(smem, &map, full, {0, 0});
  }
  if (!wrong || threadIdx.x >= 32) ptx::mbarrier_wait(full, 0);
  out[threadIdx.x] = shared[threadIdx.x];
  ptx::mbarrier_wait(full, 0);
}

// A stage that ordinary loads have read, given back by the arrival that speaks of asynchronous reads alone.
__device__ void stage_of_loads(bool wrong, const CUtensorMap& map, uint32_t* shared, uint32_t* out) {
  const uint32_t smem = ptx::smem_u32(shared), full = smem + 4096, empty = full + 8;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(full, 1);
    ptx::mbarrier_init(empty, 1);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  const auto load = [&] {
    ptx::mbarrier_arrive_expect_tx(full, 2048);
    ptx::tma_load(smem, &map, full, {0, 0});
  };
  if (threadIdx.x == 0) load();
  if (threadIdx.x == 32) {
    ptx::mbarrier_wait(full, 0);
    out[0] = shared[7];
    if (wrong) {
      ptx::mbarrier_arrive_async_reads(ptx::mapa(empty, 0));
    } else {
      ptx::mbarrier_arrive(empty);
    }
  }
  if (threadIdx.x == 0) {
    ptx::mbarrier_wait(empty, 0);
    load();
    ptx::mbarrier_wait(full, 1);
  }
}

// A tile stored by TMA whose source is written again too early, or was not made visible to it.
__device__ void tile_source(bool reuse_early, bool no_proxy_fence, const CUtensorMap& map, uint32_t* shared) {
  for (uint32_t i = threadIdx.x; i < 512; i += blockDim.x) shared[i] = i;
  if (!no_proxy_fence) ptx::fence_proxy_async_shared();
  __syncthreads();
  if (threadIdx.x == 0) {
    ptx::tma_store(&map, ptx::smem_u32(shared), {0, 0});
    ptx::bulk_commit();
    if (!reuse_early) ptx::bulk_wait_read<0>();
    shared[5] = 0;
    ptx::bulk_wait<0>();
  }
}

// Generic stores read by wgmma without a proxy fence, or overwritten while it may still read.
__device__ void wgmma_operands(bool no_proxy_fence, bool overwrite_early, uint32_t* shared, uint32_t* out) {
  set_shared(shared, 0x3F803F80u, 1024);
  if (!no_proxy_fence) ptx::fence_proxy_async_shared();
  __syncthreads();
  const uint64_t ones = wgmma_descriptor(ptx::smem_u32(shared), 128, 256, Swizzle::none);
  float d[4] = {};
  ptx::keep_in_place(d);
  ptx::wgmma_fence();
  ptx::wgmma_ss<8>(d, ones, ones, true);
  ptx::wgmma_commit();
  if (overwrite_early) shared[threadIdx.x] = 0;
  ptx::wgmma_wait<0>();
  ptx::keep_in_place(d);
  if (!overwrite_early) {
    __syncthreads();
    shared[threadIdx.x] = 0;
  }
  out[threadIdx.x] = static_cast<uint32_t>(d[0]);
}

template <PtxRace Kind>
__global__ void race(const __grid_constant__ CUtensorMap map, bool wrong, uint32_t* out) {
  auto* shared = dyn_smem<uint32_t>();
  if constexpr (Kind == PtxRace::ldmatrix_of_stores) ldmatrix_of_stores(wrong, shared, out);
  if constexpr (Kind == PtxRace::stmatrix_then_load) stmatrix_then_load(wrong, shared, out);
  if constexpr (Kind == PtxRace::store_after_ldmatrix) store_after_ldmatrix(wrong, shared, out);
  if constexpr (Kind == PtxRace::wide_shared) wide_shared(wrong, shared, out);
  if constexpr (Kind == PtxRace::tile_not_waited_for) tile_not_waited_for(wrong, map, shared, out);
  if constexpr (Kind == PtxRace::stage_of_loads) stage_of_loads(wrong, map, shared, out);
  if constexpr (Kind == PtxRace::tile_source_reused) tile_source(wrong, false, map, shared);
  if constexpr (Kind == PtxRace::tile_without_proxy_fence) tile_source(false, wrong, map, shared);
  if constexpr (Kind == PtxRace::wgmma_without_proxy_fence) wgmma_operands(wrong, false, shared, out);
  if constexpr (Kind == PtxRace::wgmma_operand_overwritten) wgmma_operands(false, wrong, shared, out);
  if constexpr (Kind == PtxRace::wide_global) wide_global(wrong, shared, out);
  if constexpr (Kind == PtxRace::narrow_shared) narrow_shared(wrong, shared, out);
  if constexpr (Kind == PtxRace::async_copy_not_waited) async_copy(wrong, shared, out);
  if constexpr (Kind == PtxRace::bulk_not_waited) bulk_loads(wrong, false, shared, out);
  if constexpr (Kind == PtxRace::bulk_source_overwritten) bulk_loads(false, wrong, shared, out);
  if constexpr (Kind == PtxRace::bulk_source_without_proxy_fence) bulk_source_written(wrong, shared, out);
  if constexpr (Kind == PtxRace::tile_overwritten_on_its_way) tile_overwritten(wrong, map, shared);
  if constexpr (Kind == PtxRace::bulk_target_not_waited) bulk_writes(wrong, false, shared, out);
  if constexpr (Kind == PtxRace::bulk_sum_not_waited) bulk_writes(wrong, true, shared, out);
  if constexpr (Kind == PtxRace::cluster_words) cluster_words(wrong, shared, out);
  if constexpr (Kind == PtxRace::bulk_source_of_other_block) bulk_source_of_other_block(wrong, shared, out);
  if constexpr (Kind >= PtxRace::add_acq_rel) last_of_two<Kind>(wrong, out);
  if constexpr (Kind == PtxRace::uninitialised_ldmatrix) {
    if (!wrong || threadIdx.x != 9) ptx::st128_shared(ptx::smem_u32(shared) + 16 * threadIdx.x, uint4{0, 0, 0, 0});
    __syncthreads();
    uint32_t r[4];
    ptx::ldmatrix_x4(r, ptx::smem_u32(shared) + 16 * (threadIdx.x % 32));
    out[threadIdx.x] = r[3];
  }
  if constexpr (Kind == PtxRace::tiles_of_two_blocks) {  // the same tile from both blocks: sums may meet, stores may not
    for (uint32_t i = threadIdx.x; i < 512; i += blockDim.x) shared[i] = 0;
    ptx::fence_proxy_async_shared();
    __syncthreads();
    if (threadIdx.x == 0) {
      if (wrong) {
        ptx::tma_store(&map, ptx::smem_u32(shared), {0, 0});
      } else {
        ptx::tma_reduce_add(&map, ptx::smem_u32(shared), {0, 0});
      }
      ptx::bulk_commit();
      ptx::bulk_wait<0>();
    }
  }
}

template <PtxRace... Kinds>
PtxRaces* pick(PtxRace kind) {
  PtxRaces* found = nullptr;
  ((kind == Kinds ? void(found = race<Kinds>) : void()), ...);
  return found;
}

}  // namespace

PtxRaces* ptx_race(PtxRace kind) {
  return pick<PtxRace::ldmatrix_of_stores, PtxRace::stmatrix_then_load, PtxRace::store_after_ldmatrix, PtxRace::wide_shared,
              PtxRace::tile_not_waited_for, PtxRace::stage_of_loads, PtxRace::tile_source_reused, PtxRace::tile_without_proxy_fence,
              PtxRace::wgmma_without_proxy_fence, PtxRace::wgmma_operand_overwritten, PtxRace::uninitialised_ldmatrix, PtxRace::tiles_of_two_blocks,
              PtxRace::wide_global, PtxRace::narrow_shared, PtxRace::async_copy_not_waited, PtxRace::bulk_not_waited,
              PtxRace::bulk_source_overwritten, PtxRace::tile_overwritten_on_its_way, PtxRace::bulk_target_not_waited, PtxRace::bulk_sum_not_waited,
              PtxRace::cluster_words, PtxRace::add_acq_rel, PtxRace::cas_acq_rel, PtxRace::red_release, PtxRace::release_acquire,
              PtxRace::fences_of_grid, PtxRace::fences_of_cluster, PtxRace::fences_of_block, PtxRace::bulk_source_without_proxy_fence,
              PtxRace::bulk_source_of_other_block>(kind);
}

// 64 rows of 128 bytes, read by ldmatrix eight rows at a time down one column of chunks: with the swizzle no two rows meet in a bank.
__global__ void column_of_chunks(bool swizzle, uint32_t* out) {
  auto* shared = dyn_smem<uint32_t>();
  set_shared(shared, 0, 2048);
  __syncthreads();
  const uint32_t row = threadIdx.x % 32, chunk = threadIdx.x / 32;
  uint32_t r[4];
  ptx::ldmatrix_x4(r, ptx::smem_u32(shared) + row * 128 +
                          (swizzle ? static_cast<uint32_t>(swizzled_chunk_128(static_cast<int>(row), static_cast<int>(chunk))) : chunk) * 16);
  out[threadIdx.x] = r[0];
}

}  // namespace heddle::test
