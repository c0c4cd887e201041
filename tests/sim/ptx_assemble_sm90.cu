// Every Hopper wrapper of kernels/arch/ptx.h in every form: nvcc and ptxas must take it for sm_90a without a warning. Nothing runs.
#include "kernels/arch/ptx.h"

namespace heddle {

template <int Rank>
__device__ void tiles(const CUtensorMap* map, uint32_t smem, uint32_t mbarrier, const int32_t (&at)[Rank], ptx::L2Policy policy) {
  ptx::tma_load(smem, map, mbarrier, at);
  ptx::tma_load_hinted(smem, map, mbarrier, at, policy);
  ptx::tma_load_multicast(smem, map, mbarrier, at, static_cast<uint16_t>(3));
  ptx::tma_load_multicast_hinted(smem, map, mbarrier, at, static_cast<uint16_t>(3), policy);
  ptx::tma_prefetch(map, at);
  ptx::tma_store(map, smem, at);
  ptx::tma_store_hinted(map, smem, at, policy);
  ptx::tma_reduce_add(map, smem, at);
}

__global__ void every_copy(const __grid_constant__ CUtensorMap map, float* global) {
  __shared__ alignas(1024) uint32_t buffer[1024];
  __shared__ alignas(8) uint64_t barriers[2];
  const uint32_t smem = ptx::smem_u32(buffer), full = ptx::smem_u32(&barriers[0]);
  if (ptx::elect_one()) {
    ptx::tma_prefetch_descriptor(&map);
    ptx::mbarrier_init(full, 1);
    ptx::fence_mbarrier_init();
    ptx::mbarrier_expect_tx(full, 64);
    ptx::mbarrier_arrive_expect_tx(full, 64);
    const ptx::L2Policy policy = ptx::policy_evict_first();
    const int c = static_cast<int>(threadIdx.x);
    tiles(&map, smem, full, {c}, policy);
    tiles(&map, smem, full, {c, 1}, policy);
    tiles(&map, smem, full, {c, 1, 2}, policy);
    tiles(&map, smem, full, {c, 1, 2, 3}, policy);
    tiles(&map, smem, full, {c, 1, 2, 3, 4}, policy);
    ptx::bulk_load(smem, global, 64, full);
    ptx::bulk_store(global, smem, 64);
    ptx::bulk_reduce_add_f32(global, smem, 64);
    ptx::bulk_commit();
    ptx::bulk_wait_read<1>();
    ptx::bulk_wait<0>();
  }
  ptx::mbarrier_wait(full, 0);
  ptx::mbarrier_wait_cluster(full, 1);
  ptx::fence_proxy_async_shared();
  ptx::fence_proxy_async_global();
  ptx::fence_proxy_async();
  ptx::fence_cluster();
}

__global__ void __cluster_dims__(2, 1, 1) every_cluster_wrapper(float* global) {
  __shared__ alignas(128) uint32_t buffer[64];
  __shared__ alignas(8) uint64_t barrier;
  ptx::griddepcontrol_wait();
  const uint32_t smem = ptx::smem_u32(buffer);
  ptx::cluster_arrive_relaxed();
  ptx::cluster_wait();
  const uint32_t peer = (ptx::cluster_rank() + 1) % ptx::cluster_size();
  const uint32_t word = ptx::mapa(smem, peer), remote = ptx::mapa(ptx::smem_u32(&barrier), peer);
  ptx::st_cluster(word, ptx::ld_cluster(word) + 1);
  ptx::mbarrier_arrive_cluster(remote);
  ptx::mbarrier_arrive_async_reads(remote);
  ptx::mbarrier_arrive_expect_tx_cluster(remote, 16);
  const uint32_t pair[2] = {peer, 1}, four[4] = {peer, 1, 2, 3};
  ptx::stmatrix_x1(smem, peer);
  ptx::stmatrix_x2(smem, pair);
  ptx::stmatrix_x4(smem, four);
  ptx::stmatrix_x1_trans(smem, peer);
  ptx::stmatrix_x2_trans(smem, pair);
  ptx::stmatrix_x4_trans(smem, four);
  ptx::red_add_v4_f32(global, make_float4(1, 2, 3, 4));
  ptx::griddepcontrol_launch_dependents();
  ptx::cluster_arrive();
  ptx::cluster_wait();
}

template <int N>
__device__ float sum(const float (&d)[N]) {
  float total = 0;
#pragma unroll
  for (int i = 0; i < N; ++i) total += d[i];
  return total;
}

template <int N>
__device__ float products(uint64_t a, uint64_t b, const uint32_t (&registers)[4]) {
  float d[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) d[i] = 0;
  ptx::keep_in_place(d);
  ptx::wgmma_fence();
  ptx::wgmma_ss<N>(d, a, b, false);
  ptx::wgmma_ss<N, Major::mn, Major::mn>(d, a, advanced(b, 32), true);
  ptx::wgmma_ss<N, Major::k, Major::mn>(d, a, b, true);
  ptx::wgmma_ss<N, Major::mn, Major::k>(d, a, b, true);
  ptx::wgmma_rs<N>(d, registers, b, true);
  ptx::wgmma_rs<N, Major::mn>(d, registers, b, true);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::keep_in_place(d);
  return sum(d);
}

// One kernel for each N: together they would spill.
template <int N>
__global__ void __launch_bounds__(128, 1) every_wgmma(float* out) {
  extern __shared__ __align__(1024) std::byte operands[];
  const uint64_t a = wgmma_descriptor(ptx::smem_u32(operands), 16, 1024, Swizzle::bytes128);
  const uint64_t b = wgmma_descriptor(ptx::smem_u32(operands) + 8192, 16, 1024, Swizzle::bytes128);
  const uint32_t registers[4] = {threadIdx.x, 1, 2, 3};
  out[threadIdx.x] = products<N>(a, b, registers);
}

#define HEDDLE_TEST_FOUR(n)                               \
  template __global__ void every_wgmma<(n)>(float*);      \
  template __global__ void every_wgmma<(n) + 8>(float*);  \
  template __global__ void every_wgmma<(n) + 16>(float*); \
  template __global__ void every_wgmma<(n) + 24>(float*)
HEDDLE_TEST_FOUR(8);
HEDDLE_TEST_FOUR(40);
HEDDLE_TEST_FOUR(72);
HEDDLE_TEST_FOUR(104);
HEDDLE_TEST_FOUR(136);
HEDDLE_TEST_FOUR(168);
HEDDLE_TEST_FOUR(200);
HEDDLE_TEST_FOUR(232);

__global__ void __launch_bounds__(256, 1) every_register_move(float* out) {
  if (threadIdx.x < 128) {
    ptx::setmaxnreg_dec<40>();
  } else {
    ptx::setmaxnreg_inc<232>();
  }
  out[threadIdx.x] = 0;
}

}  // namespace heddle
