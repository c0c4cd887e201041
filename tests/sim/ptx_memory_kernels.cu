// One thread: see ptx_kernels.h.
#include "tests/sim/ptx_device.cuh"
#include "tests/sim/ptx_kernels.h"

namespace heddle::test {

__global__ void approximations(const float* x, int n, float* out) {
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
    float* to = out + i * kUnary;
    to[0] = ptx::ex2(x[i]);
    to[1] = ptx::lg2(x[i]);
    to[2] = ptx::rcp(x[i]);
    to[3] = ptx::rsqrt(x[i]);
    to[4] = ptx::tanh(x[i]);
  }
}

__global__ void conversions(const float* x, const float* y, int n, uint32_t* out) {
  for (int i = static_cast<int>(threadIdx.x); i < n; i += static_cast<int>(blockDim.x)) {
    out[3 * i] = ptx::cvt_bf16x2(x[i], y[i]);
    out[3 * i + 1] = ptx::cvt_f16x2(x[i], y[i]);
    out[3 * i + 2] = ptx::cvt_tf32(x[i]);
  }
}

__global__ void wide_accesses(const uint4* in, int n, uint4* out) {
  const uint32_t smem = ptx::smem_u32(dyn_smem<uint4>());
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  ptx::st128(out + i, ptx::ld128(in + i));
  ptx::st128_streaming(out + n + i, ptx::ld128_read_once(in + i));
  ptx::st128_hinted(out + 2 * n + i, ptx::ld128_hinted(in + i, ptx::policy_evict_first()), ptx::policy_evict_last());
  ptx::st128_shared(smem + 16 * threadIdx.x, ptx::ld128(in + i));
  ptx::st128(out + 3 * n + i, ptx::ld128_shared(smem + 16 * threadIdx.x));
  const uint4 v = ptx::ld128(in + i);
  ptx::st64_shared(smem + 16 * threadIdx.x + 8, uint2{v.x, v.y});
  ptx::st64_shared(smem + 16 * threadIdx.x, uint2{v.z, v.w});
  ptx::st128(out + 4 * n + i, ptx::ld128_shared(smem + 16 * threadIdx.x));
  auto* const half = reinterpret_cast<std::byte*>(out + 5 * n + i);
  ptx::st64(half, ptx::ld64(reinterpret_cast<const std::byte*>(in + i) + 8));
  ptx::st64(half + 8, ptx::ld64(in + i));
}

__global__ void atomics(uint32_t* words, float* reals, uint32_t* old, float* old_real) {
  auto* shared = dyn_smem<uint32_t>();
  const uint32_t smem = ptx::smem_u32(shared), i = threadIdx.x;
  if (i == 0) {
    shared[0] = 0;
    shared[1] = __builtin_bit_cast(uint32_t, 0.0f);
  }
  __syncthreads();
  ptx::red_add_release_gpu(words, i);
  old[i] = ptx::atom_add_acq_rel_gpu(words + 1, 1);
  old[blockDim.x + i] = ptx::atom_add(words + 2, 2);
  if (ptx::atom_cas_acq_rel_gpu(words + 3, 0, i + 1) == 0) ptx::st_release_gpu(words + 4, i + 1);
  old_real[i] = ptx::atom_add_f32(reals, 1.0f);
  ptx::red_add_f32(reals + 1, static_cast<float>(i));
  old[2 * blockDim.x + i] = ptx::atom_add_shared(smem, 3);
  ptx::red_add_f32_shared(smem + 4, 0.5f);
  __syncthreads();
  if (i == 0) {
    words[5] = shared[0];
    reals[2] = __builtin_bit_cast(float, shared[1]);
    words[6] = ptx::ld_acquire_gpu(words + 2);
  }
}

namespace {

template <int Bytes>
__global__ void copy(const std::byte* in, const uint32_t* size, uint32_t* out) {
  auto* shared = dyn_smem<std::byte>();
  const uint32_t smem = ptx::smem_u32(shared), i = threadIdx.x;
  ptx::cp_async<Bytes>(smem + Bytes * i, in + Bytes * i);
  ptx::cp_async_commit();
  ptx::cp_async_zfill<Bytes>(smem + Bytes * (blockDim.x + i), in + Bytes * i, size[i]);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
  __syncthreads();
  dump_shared(out, reinterpret_cast<uint32_t*>(shared), 2 * Bytes * blockDim.x / 4);
}

}  // namespace

CpAsyncs* cp_asyncs(int bytes) {
  return bytes == 4 ? copy<4> : bytes == 8 ? copy<8> : copy<16>;
}

__global__ void one_group_pending(const uint4* in, uint4* out) {
  auto* shared = dyn_smem<uint4>();
  const uint32_t smem = ptx::smem_u32(shared);
  ptx::st128_shared(smem, uint4{7, 7, 7, 7});
  ptx::st128_shared(smem + 16, uint4{7, 7, 7, 7});
  ptx::cp_async<16>(smem, in);
  ptx::cp_async_commit();
  ptx::cp_async<16>(smem + 16, in + 1);
  ptx::cp_async_commit();
  ptx::cp_async_wait<1>();
  out[0] = ptx::ld128_shared(smem);
  out[1] = ptx::ld128_shared(smem + 16);
  ptx::cp_async_wait<0>();
  out[2] = ptx::ld128_shared(smem + 16);
}

__global__ void shifted_cp_async(const std::byte* in, uint32_t shift, uint32_t bytes) {
  const uint32_t smem = ptx::smem_u32(dyn_smem<uint32_t>());
  ptx::cp_async_zfill<16>(smem + shift, in, bytes);
  ptx::cp_async_commit();
  ptx::cp_async_wait<0>();
}

}  // namespace heddle::test
