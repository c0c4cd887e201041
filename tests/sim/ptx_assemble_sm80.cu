// Every Ampere wrapper of kernels/arch/ptx.h in every form: nvcc and ptxas must take it for sm_80 and later without a warning. Nothing runs.
#include "kernels/arch/ptx.h"

namespace heddle {

__device__ uint32_t collectives(uint32_t x, uint32_t members) {
  float f = ptx::shfl_bfly(static_cast<float>(x), 16);
  f += ptx::shfl_idx<8>(f, 3) + ptx::shfl_up(f, 1, members) + ptx::shfl_down<4>(f, 2);
  x += static_cast<uint32_t>(ptx::shfl_bfly<16>(static_cast<int>(x), 8)) + ptx::shfl_idx(x, 0, members);
  x += ptx::vote_ballot(x > 3) + ptx::vote_any(x > 5) + ptx::vote_all(x > 7, members);
  x += ptx::match_any(x) + ptx::match_all(x, members);
  x += ptx::reduce_add(x) + ptx::reduce_min(x) + ptx::reduce_max(x) + ptx::reduce_and(x) + ptx::reduce_or(x) + ptx::reduce_xor(x, members);
  const int32_t s = static_cast<int32_t>(x);
  x += static_cast<uint32_t>(ptx::reduce_min_signed(s) + ptx::reduce_max_signed(s));
  ptx::warp_sync();
  ptx::bar_sync(1, 64);
  ptx::bar_arrive(2 + (x & 1), 64);
  return x + static_cast<uint32_t>(f) + ptx::lane_id();
}

__device__ float memory(void* global, uint32_t smem) {
  uint4 v = ptx::ld128(global);
  const uint4 once = ptx::ld128_read_once(static_cast<std::byte*>(global) + 16);
  const uint4 hinted = ptx::ld128_hinted(static_cast<std::byte*>(global) + 32, ptx::policy_evict_first());
  v.x += once.x + hinted.y;
  ptx::st128(global, v);
  ptx::st128_streaming(global, v);
  ptx::st128_hinted(global, v, ptx::policy_evict_last());
  ptx::st64(global, ptx::ld64(static_cast<std::byte*>(global) + 8));
  ptx::st128_shared(smem, ptx::ld128_shared(smem + 16));
  ptx::st64_shared(smem, make_uint2(v.x, v.y));
  auto* word = static_cast<uint32_t*>(global);
  auto* real = static_cast<float*>(global);
  ptx::st_release_gpu(word, ptx::ld_acquire_gpu(word + 1));
  ptx::red_add_release_gpu(word, 1);
  uint32_t old = ptx::atom_add_acq_rel_gpu(word, 1) + ptx::atom_cas_acq_rel_gpu(word, 1, 2) + ptx::atom_add(word, 3) + ptx::atom_add_shared(smem, 4);
  ptx::red_add_f32(real, 1.0f);
  ptx::red_add_f32_shared(smem, 1.0f);
  ptx::fence_cta();
  ptx::fence_gpu();
  return ptx::atom_add_f32(real, 2.0f) + static_cast<float>(old);
}

__device__ void copies(const void* global, uint32_t smem, uint32_t bytes) {
  ptx::cp_async<4>(smem, global);
  ptx::cp_async<8>(smem, global);
  ptx::cp_async<16>(smem, global);
  ptx::cp_async_zfill<4>(smem, global, bytes);
  ptx::cp_async_zfill<8>(smem, global, bytes);
  ptx::cp_async_zfill<16>(smem, global, bytes);
  ptx::cp_async_commit();
  ptx::cp_async_wait<2>();
  ptx::mbarrier_init(smem, 1);
  ptx::cp_async_arrive_noinc(smem);
  ptx::mbarrier_arrive(smem);
  while (!ptx::mbarrier_test(smem, 0)) {
  }
  ptx::mbarrier_inval(smem);
  ptx::cp_async_wait<0>();
}

__device__ float tensor_cores(uint32_t smem) {
  uint32_t a[4], pair[2], one, other;
  float d[4] = {};
  ptx::ldmatrix_x4(a, smem);
  ptx::ldmatrix_x2(pair, smem);
  ptx::ldmatrix_x1(one, smem);
  ptx::mma_m16n8k16_bf16(d, a, pair[0], one);
  ptx::ldmatrix_x4_trans(a, smem);
  ptx::ldmatrix_x2_trans(pair, smem);
  ptx::ldmatrix_x1_trans(other, smem);
  ptx::mma_m16n8k16_f16(d, a, pair[0], pair[1]);
  ptx::mma_m16n8k8_tf32(d, a, other, ptx::cvt_tf32(d[0]));
  return d[0] + d[1] + d[2] + d[3];
}

__global__ void every_ampere_wrapper(void* global, uint32_t members, float* out) {
  __shared__ alignas(128) uint32_t buffer[1024];
  const uint32_t smem = ptx::smem_u32(buffer);
  float f = static_cast<float>(collectives(threadIdx.x, members)) + memory(global, smem) + tensor_cores(smem);
  copies(global, smem, members);
  f += ptx::ex2(f) + ptx::lg2(f) + ptx::rcp(f) + ptx::rsqrt(f) + ptx::tanh(f);
  const float2 both = unpack2(pack2(f, 1.0f));
  f += both.x + both.y + to_float(from_float<bf16>(f)) + to_float(from_float<__nv_bfloat16>(f)) + to_float(from_float<float>(f)) +
       static_cast<float>(ptx::cvt_f16x2(f, f));
  float kept[2] = {f, f};
  ptx::keep_in_place(kept);
  out[threadIdx.x] = kept[0] + kept[1];
}

}  // namespace heddle
