// The instructions a kernel may name, one function each. Below every declaration stands its contract: operands, who must execute it, what it orders,
// and the section of the PTX ISA that defines it. ptx_nv.inl holds the nvcc half (one wrapper = one instruction of inline PTX), ptx_sim.h the
// simulated half.
//
// Common rules
//   - A shared-memory operand is the 32-bit shared address that smem_u32 gives; plain integer arithmetic moves it. mapa turns it into the
//     same place of another block of the cluster; only the functions that say "cluster address" take the result.
//   - "warp": all 32 lanes, converged (.sync.aligned). "warpgroup": four warps, the first a multiple of 4, all converged. The simulated
//     machine refuses a call from fewer, except that lanes which return without it do not count. "members": the lanes named by the mask,
//     which includes the caller. "thread": anyone.
//   - "sm_90": Hopper; the rest is Ampere's. wgmma and setmaxnreg need sm_90a.
//   - Shuffles and votes order no memory. An asynchronous operation is done only where its wait says so.
//   - Where is the caller's place in the source, filled in by the compiler and empty under nvcc; never pass one.
#pragma once

#include <cstdint>

#include "kernels/arch/fragments.h"
#include "kernels/arch/platform.h"
#include "kernels/arch/ptx_types.h"

namespace heddle::ptx {

// ---- places ----

// The shared address of a pointer into this block's shared memory. [Data Movement: cvta]
__device__ uint32_t smem_u32(const void* pointer, Where = {});
// 0..31, the lane of the caller in its warp. [Special Registers: %laneid]
__device__ uint32_t lane_id(Where = {});

// ---- warp: shuffles, votes, reductions ----

// members. T is a 32-bit type. Width (a power of two) cuts the warp in segments. Reading a lane outside the segment returns the caller's own value
// (up, down, bfly) or wraps inside the segment (idx); reading a lane outside members is undefined on hardware and an error here. [Data Movement:
// shfl.sync]
template <int Width = 32, class T>
__device__ __forceinline__ T shfl_idx(T value, int source, uint32_t members = kFullWarp, Where = {});
template <int Width = 32, class T>
__device__ __forceinline__ T shfl_up(T value, int delta, uint32_t members = kFullWarp, Where = {});
template <int Width = 32, class T>
__device__ __forceinline__ T shfl_down(T value, int delta, uint32_t members = kFullWarp, Where = {});
template <int Width = 32, class T>
__device__ __forceinline__ T shfl_bfly(T value, int lane_xor, uint32_t members = kFullWarp, Where = {});
// members. [Parallel Synchronization: vote.sync, match.sync, redux.sync, activemask]
__device__ uint32_t vote_ballot(bool predicate, uint32_t members = kFullWarp, Where = {});
__device__ bool vote_any(bool predicate, uint32_t members = kFullWarp, Where = {});
__device__ bool vote_all(bool predicate, uint32_t members = kFullWarp, Where = {});
// The members that hold the caller's value.
__device__ uint32_t match_any(uint32_t value, uint32_t members = kFullWarp, Where = {});
// members if all hold the same value, else 0.
__device__ uint32_t match_all(uint32_t value, uint32_t members = kFullWarp, Where = {});
__device__ uint32_t reduce_add(uint32_t value, uint32_t members = kFullWarp, Where = {});
__device__ uint32_t reduce_min(uint32_t value, uint32_t members = kFullWarp, Where = {});
__device__ uint32_t reduce_max(uint32_t value, uint32_t members = kFullWarp, Where = {});
__device__ int32_t reduce_min_signed(int32_t value, uint32_t members = kFullWarp, Where = {});
__device__ int32_t reduce_max_signed(int32_t value, uint32_t members = kFullWarp, Where = {});
__device__ uint32_t reduce_and(uint32_t value, uint32_t members = kFullWarp, Where = {});
__device__ uint32_t reduce_or(uint32_t value, uint32_t members = kFullWarp, Where = {});
__device__ uint32_t reduce_xor(uint32_t value, uint32_t members = kFullWarp, Where = {});
// members. Waits for them and orders their memory accesses. [bar.warp.sync]
__device__ void warp_sync(uint32_t members = kFullWarp, Where = {});
// warp. True in exactly one lane, the same one each time. sm_90 [elect.sync]
__device__ bool elect_one(Where = {});

// ---- block: barriers ----

// warp. Barrier id (1-15; 0 is __syncthreads') completes when `threads` (a multiple of 32) have come by sync or arrive; orders their memory
// accesses for those that sync. [Parallel Synchronization: bar.sync, bar.arrive]
__device__ void bar_sync(uint32_t id, uint32_t threads, Where = {});
__device__ void bar_arrive(uint32_t id, uint32_t threads, Where = {});

// ---- memory ----

// thread. 16 bytes, 16-byte aligned. [Data Movement: ld, ld.global.nc, st]
__device__ uint4 ld128(const void* global, Where = {});
__device__ uint4 ld128_read_once(const void* global, Where = {});                // .nc.L1::no_allocate: read-only for the whole kernel
__device__ uint4 ld128_hinted(const void* global, L2Policy policy, Where = {});  // .L2::cache_hint
__device__ void st128(void* global, uint4 value, Where = {});
__device__ void st128_streaming(void* global, uint4 value, Where = {});  // .cs: written once, first to leave the cache
__device__ void st128_hinted(void* global, uint4 value, L2Policy policy, Where = {});
// thread. 8 bytes, 8-byte aligned: what accompanies 16 of a wider dtype.
__device__ uint2 ld64(const void* global, Where = {});
__device__ void st64(void* global, uint2 value, Where = {});
__device__ uint4 ld128_shared(uint32_t smem, Where = {});
__device__ void st128_shared(uint32_t smem, uint4 value, Where = {});
__device__ void st64_shared(uint32_t smem, uint2 value, Where = {});  // 8 bytes, 8-byte aligned
// thread. 4 bytes at a cluster address (mapa). The peer must be alive: cluster barrier before and after. sm_90 [ld/st.shared::cluster]
__device__ uint32_t ld_cluster(uint32_t cluster_smem, Where = {});
__device__ void st_cluster(uint32_t cluster_smem, uint32_t value, Where = {});
// A cache policy for the _hinted forms, in this thread only. [createpolicy.fractional]
__device__ L2Policy policy_evict_first(Where = {});
__device__ L2Policy policy_evict_last(Where = {});

// thread. Synchronising accesses to a 4-byte word of global memory, scope gpu: a release before an acquire that reads its value orders everything the
// releasing thread did (or saw) before. Spin only through spin_until of platform.h. [ld.acquire, st.release, red, atom; Memory Consistency Model]
__device__ uint32_t ld_acquire_gpu(const uint32_t* global, Where = {});
__device__ void st_release_gpu(uint32_t* global, uint32_t value, Where = {});
__device__ void red_add_release_gpu(uint32_t* global, uint32_t value, Where = {});
__device__ uint32_t atom_add_acq_rel_gpu(uint32_t* global, uint32_t value, Where = {});  // returns the old value
__device__ uint32_t atom_cas_acq_rel_gpu(uint32_t* global, uint32_t expected, uint32_t value, Where = {});
// thread. Relaxed: atomic, ordering nothing. The order of float sums is not deterministic. [red, atom]
__device__ uint32_t atom_add(uint32_t* global, uint32_t value, Where = {});
__device__ float atom_add_f32(float* global, float value, Where = {});
__device__ void red_add_f32(float* global, float value, Where = {});
__device__ void red_add_v4_f32(float* global, float4 value, Where = {});  // sm_90; 16-byte aligned; each of the four atomic by itself
__device__ void red_add_f32_shared(uint32_t smem, float value, Where = {});
__device__ uint32_t atom_add_shared(uint32_t smem, uint32_t value, Where = {});
// thread. Orders the caller's accesses before it with those after it, for the scope. [membar/fence.acq_rel]
__device__ void fence_cta(Where = {});
__device__ void fence_cluster(Where = {});  // sm_90
__device__ void fence_gpu(Where = {});

// ---- cp.async: global to shared, per thread ----

// thread. Bytes is 4, 8 (cached in L1) or 16 (L2 only); both addresses aligned to it. Done after commit and wait of the same thread; a block
// barrier then shows it to others. [Data Movement: cp.async]
template <int Bytes>
__device__ __forceinline__ void cp_async(uint32_t smem, const void* global, Where = {});
// Copies the first source_bytes (0..Bytes) and zero-fills the rest; with 0 the source is not read, but must be an address.
template <int Bytes>
__device__ __forceinline__ void cp_async_zfill(uint32_t smem, const void* global, uint32_t source_bytes, Where = {});
__device__ void cp_async_commit(Where = {});  // ends a group; empty groups count
// All but the caller's Pending newest groups are done. [cp.async.wait_group]
template <int Pending>
__device__ __forceinline__ void cp_async_wait(Where = {});
// When the caller's cp.async so far are done, arrives on the mbarrier; the pending count is not raised for it. [cp.async.mbarrier.arrive.noinc]
__device__ void cp_async_arrive_noinc(uint32_t mbarrier, Where = {});

// ---- tensor cores of a warp ----

// warp. Lane l gives the address of row l % 8 of matrix l / 8 (x1 uses lanes 0-7, x2 0-15); 16-byte aligned. Layout: fragments.h, matrix_8x8.
// Generic proxy. [Warp Level Matrix Instructions: ldmatrix]
__device__ void ldmatrix_x1(uint32_t& r, uint32_t smem, Where = {});
__device__ void ldmatrix_x2(uint32_t (&r)[2], uint32_t smem, Where = {});
__device__ void ldmatrix_x4(uint32_t (&r)[4], uint32_t smem, Where = {});
__device__ void ldmatrix_x1_trans(uint32_t& r, uint32_t smem, Where = {});
__device__ void ldmatrix_x2_trans(uint32_t (&r)[2], uint32_t smem, Where = {});
__device__ void ldmatrix_x4_trans(uint32_t (&r)[4], uint32_t smem, Where = {});
// warp. The inverse. sm_90. Before TMA or wgmma reads what it wrote: fence_proxy_async_shared by every writer. [stmatrix]
__device__ void stmatrix_x1(uint32_t smem, uint32_t r, Where = {});
__device__ void stmatrix_x2(uint32_t smem, const uint32_t (&r)[2], Where = {});
__device__ void stmatrix_x4(uint32_t smem, const uint32_t (&r)[4], Where = {});
__device__ void stmatrix_x1_trans(uint32_t smem, uint32_t r, Where = {});
__device__ void stmatrix_x2_trans(uint32_t smem, const uint32_t (&r)[2], Where = {});
__device__ void stmatrix_x4_trans(uint32_t smem, const uint32_t (&r)[4], Where = {});
// warp. D (16, 8) += A (16, 16) B (16, 8), accumulated in fp32; layout: fragments.h. Synchronous. [mma.sync]
__device__ void mma_m16n8k16_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Where = {});
__device__ void mma_m16n8k16_f16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Where = {});
__device__ void mma_m16n8k8_tf32(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, Where = {});  // A (16, 8), B (8, 8)

// ---- mbarrier (a 64-bit object in shared memory, 8-byte aligned) ----

// A phase ends when the pending arrivals and the pending bytes are both zero; the next starts with `arrivals` pending. Phases have parity 0, 1, 0,
// ...; a fresh barrier is in phase 0, so waiting for parity 1 passes at once. sm_90 unless said. [Parallel Synchronization: mbarrier]
__device__ void mbarrier_init(uint32_t mbarrier, uint32_t arrivals, Where = {});    // thread; then fence_mbarrier_init and a barrier. sm_80
__device__ void mbarrier_inval(uint32_t mbarrier, Where = {});                      // thread; before its memory is used for something else. sm_80
__device__ void mbarrier_arrive(uint32_t mbarrier, Where = {});                     // thread; release.cta. sm_80
__device__ void mbarrier_expect_tx(uint32_t mbarrier, uint32_t bytes, Where = {});  // thread; bytes without an arrival
__device__ void mbarrier_arrive_expect_tx(uint32_t mbarrier, uint32_t bytes, Where = {});  // thread; raises the bytes, then arrives; release.cta
__device__ void mbarrier_arrive_cluster(uint32_t cluster_mbarrier, Where = {});            // thread; a cluster address (mapa); release.cluster
__device__ void mbarrier_arrive_expect_tx_cluster(uint32_t cluster_mbarrier, uint32_t bytes, Where = {});
// thread; a cluster address. Gives back a buffer that only asynchronous proxies touch (TMA fills it, wgmma reads it): says that the asynchronous
// reads the caller has waited for are done, and orders none of its ordinary accesses. release.cluster would cost a fence of the whole GPU at every
// stage of a ring (MEMBAR.ALL.GPU by ptxas 13.0); so CUTLASS's ClusterBarrier::arrive writes this form. The waiter needs no more than mbarrier_wait.
__device__ void mbarrier_arrive_async_reads(uint32_t cluster_mbarrier, Where = {});
// thread. Whether the phase of this parity is over; acquire.cta if so. Never loop on it: mbarrier_wait does.
__device__ bool mbarrier_test(uint32_t mbarrier, uint32_t parity, Where = {});
// thread. Returns when the phase of this parity is over; acquire.cta, or acquire.cluster for what blocks of the cluster wrote.
__device__ void mbarrier_wait(uint32_t mbarrier, uint32_t parity, Where = {});
__device__ void mbarrier_wait_cluster(uint32_t mbarrier, uint32_t parity, Where = {});
// thread, the one that initialised barriers: shows them to the async proxy and to the cluster. [fence.mbarrier_init.release.cluster]
__device__ void fence_mbarrier_init(Where = {});

// ---- proxies ----

// thread. Generic accesses (st.shared, stmatrix, cp.async) before it become visible to asynchronous ones (TMA, bulk copies, wgmma operands) after it:
// by every writer before the barrier that hands over, or by the thread that then starts the asynchronous access. sm_90 [fence.proxy.async]
__device__ void fence_proxy_async_shared(Where = {});
__device__ void fence_proxy_async_global(Where = {});  // a TMA load follows generic global writes of the same kernel
__device__ void fence_proxy_async(Where = {});         // all state spaces

// ---- TMA: tiles by tensor map (1 to 5 coordinates, innermost first, in elements) ----

// One thread (not one per warp) executes each. The map is a __grid_constant__ const kernel parameter or lies in global memory. Elements outside the
// tensor are read as zero and count in the bytes; they are not written. sm_90 [Asynchronous Data Movement: cp.async.bulk.tensor,
// cp.reduce.async.bulk.tensor]
__device__ void tma_prefetch_descriptor(const CUtensorMap* map, Where = {});
// Shared memory (128-byte aligned; the swizzle pattern follows address bits, so 8 * swizzle bytes to start at its first row) <- tile; completes with
// the box's bytes on the mbarrier of this block.
template <int Rank>
__device__ __forceinline__ void tma_load(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&at)[Rank], Where = {});
template <int Rank>
__device__ __forceinline__ void tma_load_hinted(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&at)[Rank], L2Policy policy,
                                                Where = {});
// The same tile into the blocks of the cluster whose bit is set in `blocks`, at the same offset, each signalled on its own mbarrier at the same
// offset.
template <int Rank>
__device__ __forceinline__ void tma_load_multicast(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&at)[Rank],
                                                   uint16_t blocks, Where = {});
template <int Rank>
__device__ __forceinline__ void tma_load_multicast_hinted(uint32_t smem, const CUtensorMap* map, uint32_t mbarrier, const int32_t (&at)[Rank],
                                                          uint16_t blocks, L2Policy policy, Where = {});
// L2 <- tile. [cp.async.bulk.prefetch.tensor]
template <int Rank>
__device__ __forceinline__ void tma_prefetch(const CUtensorMap* map, const int32_t (&at)[Rank], Where = {});
// Tile <- shared memory, or tile += it (element type from the map; not deterministic across blocks). Writers first: fence_proxy_async_shared, then a
// barrier. Done after bulk_commit and bulk_wait of the same thread.
template <int Rank>
__device__ __forceinline__ void tma_store(const CUtensorMap* map, uint32_t smem, const int32_t (&at)[Rank], Where = {});
template <int Rank>
__device__ __forceinline__ void tma_store_hinted(const CUtensorMap* map, uint32_t smem, const int32_t (&at)[Rank], L2Policy policy, Where = {});
template <int Rank>
__device__ __forceinline__ void tma_reduce_add(const CUtensorMap* map, uint32_t smem, const int32_t (&at)[Rank], Where = {});

// ---- bulk copies: contiguous bytes ----

// thread. Addresses 16-byte aligned, bytes a multiple of 16. The load completes on the mbarrier; the others on bulk_wait. sm_90 [cp.async.bulk]
__device__ void bulk_load(uint32_t smem, const void* global, uint32_t bytes, uint32_t mbarrier, Where = {});
__device__ void bulk_store(void* global, uint32_t smem, uint32_t bytes, Where = {});
__device__ void bulk_reduce_add_f32(float* global, uint32_t smem, uint32_t bytes, Where = {});
// thread. Ends this thread's group of stores and reductions. [cp.async.bulk.commit_group, wait_group]
__device__ void bulk_commit(Where = {});
template <int Pending>
__device__ __forceinline__ void bulk_wait(Where = {});  // all but Pending groups: global writes done and visible to this thread
template <int Pending>
__device__ __forceinline__ void bulk_wait_read(Where = {});  // all but Pending groups: shared memory has been read and may be reused

// ---- wgmma: tensor cores of a warpgroup ----

// warpgroup. wgmma_fence: before the first wgmma and after any other access to its registers; commit: ends a group; wait: all but Pending groups
// are done. No access to accumulators or A registers between wgmma and its wait. sm_90a [Asynchronous Warpgroup Level Matrix Instructions]
__device__ void wgmma_fence(Where = {});
__device__ void wgmma_commit(Where = {});
template <int Pending>
__device__ __forceinline__ void wgmma_wait(Where = {});
// D (64, N) = A (64, 16) B (16, N) + (accumulate ? D : 0); bf16 operands, fp32 accumulators, N a multiple of 8 up to 256. Shared operands by
// descriptor (fragments.h), the same in all 128 threads, read through the async proxy: what st.shared wrote needs fence_proxy_async_shared, what TMA
// wrote only its mbarrier. D and register A: fragments.h, wgmma_m64. [wgmma.mma_async]
template <int N, Major MajorA = Major::k, Major MajorB = Major::k>
__device__ __forceinline__ void wgmma_ss(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate, Where = {});
template <int N, Major MajorB = Major::k>
__device__ __forceinline__ void wgmma_rs(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool accumulate, Where = {});
// No instruction: keeps the compiler from moving accesses to these registers across it. On every accumulator before wgmma_fence and after wgmma_wait.
template <int Count>
__device__ __forceinline__ void keep_in_place(float (&registers)[Count]);
// warpgroup. Raises or lowers the registers of each thread; Count a multiple of 8, 24..256. inc blocks until they are free, so the other warpgroups
// must dec. The kernel's launch bounds must be exact. [Miscellaneous: setmaxnreg]
template <int Count>
__device__ __forceinline__ void setmaxnreg_inc(Where = {});
template <int Count>
__device__ __forceinline__ void setmaxnreg_dec(Where = {});

// ---- clusters ----

// All threads of the cluster arrive, then wait (warp: both .aligned). arrive releases and wait acquires, shared memory of peers included; the
// relaxed arrive orders nothing: only straight after fence_mbarrier_init. sm_90 [barrier.cluster, mapa, %cluster_ctarank]
__device__ void cluster_arrive(Where = {});
__device__ void cluster_arrive_relaxed(Where = {});
__device__ void cluster_wait(Where = {});
__device__ uint32_t cluster_rank(Where = {});  // of this block, 0-based
__device__ uint32_t cluster_size(Where = {});  // blocks
// thread. The cluster address of the same place in block `rank` of the cluster.
__device__ uint32_t mapa(uint32_t smem, uint32_t rank, Where = {});

// ---- dependent launches ----

// thread. wait: the grids before are done and their writes visible; needed before touching any of their output, by TMA too. launch_dependents: the
// next grid may start. No effect without the launch attribute. sm_90 [griddepcontrol]
__device__ void griddepcontrol_wait(Where = {});
__device__ void griddepcontrol_launch_dependents(Where = {});

// ---- arithmetic ----

// thread. Approximate, subnormals flushed: relative error about 2^-22 (ex2, rcp, rsqrt), absolute 2^-22 (lg2 near 1), 2^-11 (tanh).
__device__ float ex2(float x);    // 2^x [ex2.approx.ftz.f32]
__device__ float lg2(float x);    // log2 x [lg2.approx.ftz.f32]
__device__ float rcp(float x);    // 1 / x [rcp.approx.ftz.f32]
__device__ float rsqrt(float x);  // 1 / sqrt x [rsqrt.approx.ftz.f32]
__device__ float tanh(float x);   // [tanh.approx.f32]
// thread. Two floats to two 16-bit ones, nearest even, low in bits 0-15. [cvt.rn.bf16x2.f32, cvt.rn.f16x2.f32]
__device__ uint32_t cvt_bf16x2(float low, float high);
__device__ uint32_t cvt_f16x2(float low, float high);
// thread. The tf32 nearest to x (ties away from zero), in a 32-bit register. [cvt.rna.tf32.f32]
__device__ uint32_t cvt_tf32(float x);

}  // namespace heddle::ptx

#ifdef __CUDACC__
#include "kernels/arch/ptx_nv.inl"
#else
#include "kernels/arch/ptx_sim.h"
#endif

namespace heddle {

// Two floats as one register of two bf16 (nearest even; low in bits 0-15), and back.
__device__ __forceinline__ uint32_t pack2(float low, float high) {
  return ptx::cvt_bf16x2(low, high);
}
__device__ __forceinline__ float2 unpack2(uint32_t pair) {
  return {__builtin_bit_cast(float, pair << 16), __builtin_bit_cast(float, pair & 0xFFFF0000u)};
}

}  // namespace heddle
