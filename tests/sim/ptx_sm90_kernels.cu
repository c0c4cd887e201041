// What one warp or one thread can do on Hopper alone: see ptx_kernels.h.
#include "tests/sim/ptx_device.cuh"
#include "tests/sim/ptx_kernels.h"

namespace heddle::test {

__global__ void elections(uint32_t* out) {
  out[ptx::lane_id()] = ptx::elect_one() ? 1 : 0;
}

namespace {

template <int Count, bool Transposed>
__device__ inline void stmatrix(uint32_t smem, const uint32_t (&r)[Count]) {
  if constexpr (Count == 1) {
    Transposed ? ptx::stmatrix_x1_trans(smem, r[0]) : ptx::stmatrix_x1(smem, r[0]);
  } else if constexpr (Count == 2) {
    Transposed ? ptx::stmatrix_x2_trans(smem, r) : ptx::stmatrix_x2(smem, r);
  } else {
    Transposed ? ptx::stmatrix_x4_trans(smem, r) : ptx::stmatrix_x4(smem, r);
  }
}

template <int Count, bool Transposed>
__global__ void store_matrices(const uint32_t* image, uint32_t words, const uint32_t* row_of_lane, const uint32_t* registers, uint32_t* out) {
  auto* shared = dyn_smem<uint32_t>();
  fill_shared(shared, image, words);
  ptx::warp_sync();
  uint32_t r[Count];
  for (int i = 0; i < Count; ++i) r[i] = registers[threadIdx.x * Count + i];
  stmatrix<Count, Transposed>(ptx::smem_u32(shared) + 16 * row_of_lane[threadIdx.x], r);
  ptx::warp_sync();
  dump_shared(out, shared, words);
}

}  // namespace

Stmatrices* stmatrices(int count, bool transposed) {
  if (count == 1) return transposed ? store_matrices<1, true> : store_matrices<1, false>;
  if (count == 2) return transposed ? store_matrices<2, true> : store_matrices<2, false>;
  return transposed ? store_matrices<4, true> : store_matrices<4, false>;
}

__global__ void shifted_access(Wide kind, std::byte* global, uint32_t shift) {
  const uint32_t smem = ptx::smem_u32(dyn_smem<uint4>()) + shift;
  uint4 v = {};
  if (kind == Wide::store) ptx::st128(global + shift, v);
  if (kind == Wide::store_shared) ptx::st128_shared(smem, v);
  if (kind == Wide::load_shared) v = ptx::ld128_shared(smem);
  if (kind == Wide::store_half_shared) ptx::st64_shared(smem, uint2{v.x, v.y});
  if (kind == Wide::load_half) v.x = ptx::ld64(global + shift).x;
  if (kind == Wide::store_half) ptx::st64(global + shift, uint2{v.x, v.y});
  if (kind == Wide::add) ptx::red_add_v4_f32(reinterpret_cast<float*>(global + shift), float4{});
}

__global__ void vector_atomics(float* reals) {
  const float i = static_cast<float>(threadIdx.x);
  ptx::red_add_v4_f32(reals, float4{1.0f, i, -i, 0.25f});
}

__global__ void announced_copies(const uint32_t* in, uint32_t* out) {
  auto* shared = dyn_smem<uint32_t>();
  const uint32_t smem = ptx::smem_u32(shared), full = smem + 256;
  if (threadIdx.x == 0) {
    ptx::mbarrier_init(full, blockDim.x);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();
  ptx::cp_async<4>(smem + 4 * threadIdx.x, in + threadIdx.x);
  ptx::cp_async_arrive_noinc(full);
  ptx::mbarrier_wait(full, 0);
  out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

}  // namespace heddle::test
