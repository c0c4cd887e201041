// One warp: see ptx_kernels.h.
#include "tests/sim/ptx_kernels.h"

#include "tests/sim/ptx_device.cuh"

namespace heddle::test {
namespace {

template <int Width>
__global__ void shuffle_all(const uint32_t* value, const int32_t* argument, uint32_t members, uint32_t* out) {
  const uint32_t lane = ptx::lane_id();
  if ((members >> lane & 1) == 0) return;
  out[lane] = ptx::shfl_idx<Width>(value[lane], argument[lane], members);
  out[32 + lane] = ptx::shfl_up<Width>(value[lane], argument[32 + lane], members);
  out[64 + lane] = ptx::shfl_down<Width>(value[lane], argument[64 + lane], members);
  out[96 + lane] = ptx::shfl_bfly<Width>(value[lane], argument[96 + lane], members);
}

}  // namespace

Shuffles* shuffles(int width) {
  switch (width) {
    case 1: return shuffle_all<1>;
    case 2: return shuffle_all<2>;
    case 4: return shuffle_all<4>;
    case 8: return shuffle_all<8>;
    case 16: return shuffle_all<16>;
    default: return shuffle_all<32>;
  }
}

__global__ void votes(const uint32_t* value, uint32_t members, uint32_t* out) {
  const uint32_t lane = ptx::lane_id(), v = value[lane];
  if ((members >> lane & 1) == 0) return;
  uint32_t* to = out + lane * kVotes;
  to[0] = ptx::vote_ballot((v & 1) != 0, members);
  to[1] = ptx::vote_any((v & 2) != 0, members) ? 1 : 0;
  to[2] = ptx::vote_all((v & 4) != 0, members) ? 1 : 0;
  to[3] = ptx::match_any(v, members);
  to[4] = ptx::match_all(v, members);
  to[5] = ptx::reduce_add(v, members);
  to[6] = ptx::reduce_min(v, members);
  to[7] = ptx::reduce_max(v, members);
  to[8] = static_cast<uint32_t>(ptx::reduce_min_signed(static_cast<int32_t>(v), members));
  to[9] = static_cast<uint32_t>(ptx::reduce_max_signed(static_cast<int32_t>(v), members));
  to[10] = ptx::reduce_and(v, members);
  to[11] = ptx::reduce_or(v, members);
  to[12] = ptx::reduce_xor(v, members);
}

namespace {

template <int Count, bool Transposed>
__device__ inline void ldmatrix(uint32_t (&r)[Count], uint32_t smem) {
  if constexpr (Count == 1) {
    Transposed ? ptx::ldmatrix_x1_trans(r[0], smem) : ptx::ldmatrix_x1(r[0], smem);
  } else if constexpr (Count == 2) {
    Transposed ? ptx::ldmatrix_x2_trans(r, smem) : ptx::ldmatrix_x2(r, smem);
  } else {
    Transposed ? ptx::ldmatrix_x4_trans(r, smem) : ptx::ldmatrix_x4(r, smem);
  }
}

template <int Count, bool Transposed>
__global__ void load_matrices(const uint32_t* image, uint32_t words, const uint32_t* row_of_lane, uint32_t* out) {
  auto* shared = dyn_smem<uint32_t>();
  fill_shared(shared, image, words);
  ptx::warp_sync();
  uint32_t r[Count];
  ldmatrix<Count, Transposed>(r, ptx::smem_u32(shared) + 16 * row_of_lane[threadIdx.x]);
  for (int i = 0; i < Count; ++i) out[threadIdx.x * Count + i] = r[i];
}

template <Mma Type>
__global__ void multiply(const uint32_t* a, const uint32_t* b, float* d) {
  const uint32_t lane = threadIdx.x;
  uint32_t ra[4];
  float rd[4];
  for (int i = 0; i < 4; ++i) ra[i] = a[lane * 4 + i];
  for (int i = 0; i < 4; ++i) rd[i] = d[lane * 4 + i];
  if constexpr (Type == Mma::bf16) ptx::mma_m16n8k16_bf16(rd, ra, b[lane * 2], b[lane * 2 + 1]);
  if constexpr (Type == Mma::f16) ptx::mma_m16n8k16_f16(rd, ra, b[lane * 2], b[lane * 2 + 1]);
  if constexpr (Type == Mma::tf32) ptx::mma_m16n8k8_tf32(rd, ra, b[lane * 2], b[lane * 2 + 1]);
  for (int i = 0; i < 4; ++i) d[lane * 4 + i] = rd[i];
}

}  // namespace

Ldmatrices* ldmatrices(int count, bool transposed) {
  if (count == 1) return transposed ? load_matrices<1, true> : load_matrices<1, false>;
  if (count == 2) return transposed ? load_matrices<2, true> : load_matrices<2, false>;
  return transposed ? load_matrices<4, true> : load_matrices<4, false>;
}
Mmas* mmas(Mma type) {
  switch (type) {
    case Mma::bf16: return multiply<Mma::bf16>;
    case Mma::f16: return multiply<Mma::f16>;
    default: return multiply<Mma::tf32>;
  }
}

__global__ void operands_by_ldmatrix(uint32_t* out) {
  auto* tile = dyn_smem<uint16_t>();
  for (uint32_t i = threadIdx.x; i < 256; i += 32) tile[i] = static_cast<uint16_t>(i);
  ptx::warp_sync();
  const uint32_t smem = ptx::smem_u32(tile);
  const int lane = static_cast<int>(threadIdx.x);
  const auto at = [smem](const Element& e) { return smem + static_cast<uint32_t>(e.row * 16 + e.column) * 2; };
  uint32_t r[4][4];
  ptx::ldmatrix_x4(r[0], at(matrix_8x8::address_a(lane)));
  ptx::ldmatrix_x4_trans(r[1], at(matrix_8x8::address_a_transposed(lane)));
  ptx::ldmatrix_x4(r[2], at(matrix_8x8::address_b_pair(lane)));
  ptx::ldmatrix_x4_trans(r[3], at(matrix_8x8::address_b_pair_transposed(lane)));
  for (int which = 0; which < 4; ++which) {
    for (int i = 0; i < 4; ++i) out[which * 128 + lane * 4 + i] = r[which][i];
  }
}

namespace {

template <WarpMisuse Kind>
__global__ void misuse(uint32_t* out) {
  auto* shared = dyn_smem<uint32_t>();
  for (uint32_t i = 0; i < 16; ++i) shared[threadIdx.x * 16 + i] = i;
  ptx::warp_sync();
  const uint32_t smem = ptx::smem_u32(shared) + 16 * threadIdx.x;
  uint32_t r[4] = {};
  float d[4] = {};
  if constexpr (Kind == WarpMisuse::misaligned_ldmatrix) ptx::ldmatrix_x4(r, smem + (threadIdx.x == 7 ? 8 : 0));
  if constexpr (Kind == WarpMisuse::ldmatrix_outside) ptx::ldmatrix_x4(r, smem + 230000);
  if constexpr (Kind == WarpMisuse::divergent_ldmatrix) {
    if (threadIdx.x != 3) ptx::ldmatrix_x4(r, smem);
    ptx::warp_sync();
  }
  if constexpr (Kind == WarpMisuse::divergent_mma) {
    if (threadIdx.x < 16) {
      ptx::mma_m16n8k16_bf16(d, r, 0, 0);
    } else {
      ptx::mma_m16n8k16_bf16(d, r, 0, 0);
    }
  }
  out[threadIdx.x] = r[0] + static_cast<uint32_t>(d[0]);
}

}  // namespace

Misused* misused(WarpMisuse kind) {
  switch (kind) {
    case WarpMisuse::misaligned_ldmatrix: return misuse<WarpMisuse::misaligned_ldmatrix>;
    case WarpMisuse::divergent_ldmatrix: return misuse<WarpMisuse::divergent_ldmatrix>;
    case WarpMisuse::ldmatrix_outside: return misuse<WarpMisuse::ldmatrix_outside>;
    default: return misuse<WarpMisuse::divergent_mma>;
  }
}

}  // namespace heddle::test
