// wgmma: see ptx_kernels.h.
#include <array>
#include <utility>

#include "tests/sim/ptx_device.cuh"
#include "tests/sim/ptx_kernels.h"

namespace heddle::test {
namespace {

__device__ inline uint64_t descriptor_of(const Operand& operand, uint32_t smem) {
  return wgmma_descriptor(smem + operand.offset, operand.leading, operand.stride, operand.swizzle, operand.base_offset);
}

template <int N, Major MajorA, Major MajorB>
__global__ void __launch_bounds__(128, 1)
    multiply(const uint32_t* image, uint32_t words, Operand a, Operand b, const uint32_t* registers, bool accumulate, float* d) {
  auto* shared = dyn_smem<uint32_t>();
  const uint32_t smem = ptx::smem_u32(shared), thread = threadIdx.x;
  fill_shared(shared, image, words);
  ptx::fence_proxy_async_shared();
  __syncthreads();
  float rd[N / 2];
  for (int i = 0; i < N / 2; ++i) rd[i] = d[thread * (N / 2) + i];
  ptx::keep_in_place(rd);
  ptx::wgmma_fence();
  if (registers == nullptr) {
    ptx::wgmma_ss<N, MajorA, MajorB>(rd, descriptor_of(a, smem), descriptor_of(b, smem), accumulate);
  } else {
    uint32_t ra[4];
    for (int i = 0; i < 4; ++i) ra[i] = registers[thread * 4 + i];
    ptx::wgmma_rs<N, MajorB>(rd, ra, descriptor_of(b, smem), accumulate);
  }
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::keep_in_place(rd);
  for (int i = 0; i < N / 2; ++i) d[thread * (N / 2) + i] = rd[i];
}

template <Major MajorB, size_t... I>
constexpr std::array<Wgmmas*, 32> by_size(std::index_sequence<I...>) {
  return {multiply<static_cast<int>(8 * I + 8), Major::k, MajorB>...};
}

}  // namespace

Wgmmas* wgmmas(int n, Major a, Major b) {
  static const auto k_major = by_size<Major::k>(std::make_index_sequence<32>());
  static const auto mn_major = by_size<Major::mn>(std::make_index_sequence<32>());
  if (a == Major::k) return (b == Major::k ? k_major : mn_major)[static_cast<size_t>(n / 8 - 1)];
  if (n == 64) return b == Major::k ? multiply<64, Major::mn, Major::k> : multiply<64, Major::mn, Major::mn>;
  return b == Major::k ? multiply<128, Major::mn, Major::k> : multiply<128, Major::mn, Major::mn>;
}

__global__ void two_groups(float* out) {
  auto* shared = dyn_smem<uint32_t>();
  for (uint32_t i = threadIdx.x; i < 1024; i += blockDim.x) shared[i] = 0x3F803F80u;  // ones
  ptx::fence_proxy_async_shared();
  __syncthreads();
  const uint64_t ones = wgmma_descriptor(ptx::smem_u32(shared), 128, 256, Swizzle::none);
  float first[4] = {}, second[4] = {};
  ptx::keep_in_place(first);
  ptx::keep_in_place(second);
  ptx::wgmma_fence();
  for (int i = 0; i < 4; ++i) ptx::wgmma_ss<8>(first, ones, ones, i % 2 != 0);
  ptx::wgmma_commit();
  ptx::wgmma_ss<8>(second, ones, ones, false);
  ptx::wgmma_commit();
  ptx::wgmma_wait<1>();
  ptx::keep_in_place(first);
  ptx::keep_in_place(second);
  out[threadIdx.x] = first[3];
  out[128 + threadIdx.x] = second[3];
  ptx::wgmma_wait<0>();
  ptx::keep_in_place(second);
  out[256 + threadIdx.x] = second[3];
}

namespace {

template <WgmmaMisuse Kind>
__global__ void misuse(uint32_t* out) {
  auto* shared = dyn_smem<uint32_t>();
  const uint32_t smem = ptx::smem_u32(shared);
  set_shared(shared, 0x3F803F80u, 1024);
  ptx::fence_proxy_async_shared();
  __syncthreads();
  uint64_t a = wgmma_descriptor(smem, 128, 256, Swizzle::none);
  uint64_t b = Kind == WgmmaMisuse::outside ? advanced(a, 200000) : Kind == WgmmaMisuse::end_outside ? advanced(a, 4096 - 128) : a;
  if (Kind == WgmmaMisuse::different_a && threadIdx.x == 77) a = advanced(a, 16);
  if (Kind == WgmmaMisuse::different_b && threadIdx.x == 77) b = advanced(b, 16);
  const bool accumulate = Kind == WgmmaMisuse::different_accumulate && threadIdx.x == 77;
  float d[4] = {};
  ptx::keep_in_place(d);
  if (Kind != WgmmaMisuse::no_fence) ptx::wgmma_fence();
  if (Kind != WgmmaMisuse::one_warp_missing || threadIdx.x < 96) ptx::wgmma_ss<8>(d, a, b, accumulate);
  ptx::wgmma_commit();
  ptx::wgmma_wait<0>();
  ptx::keep_in_place(d);
  if (Kind == WgmmaMisuse::accumulators_written) {
    d[1] += 1.0f;
    ptx::wgmma_ss<8>(d, a, b, true);
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();
    ptx::keep_in_place(d);
  }
  out[threadIdx.x] = static_cast<uint32_t>(d[0]);
}

}  // namespace

Misused* misused(WgmmaMisuse kind) {
  switch (kind) {
    case WgmmaMisuse::no_fence: return misuse<WgmmaMisuse::no_fence>;
    case WgmmaMisuse::accumulators_written: return misuse<WgmmaMisuse::accumulators_written>;
    case WgmmaMisuse::different_a: return misuse<WgmmaMisuse::different_a>;
    case WgmmaMisuse::different_b: return misuse<WgmmaMisuse::different_b>;
    case WgmmaMisuse::different_accumulate: return misuse<WgmmaMisuse::different_accumulate>;
    case WgmmaMisuse::outside: return misuse<WgmmaMisuse::outside>;
    case WgmmaMisuse::end_outside: return misuse<WgmmaMisuse::end_outside>;
    default: return misuse<WgmmaMisuse::one_warp_missing>;
  }
}

}  // namespace heddle::test
