// An operand of a Hopper product in shared memory: how TMA lays it down and how wgmma reads it, in one place.
#pragma once

#include "kernels/arch/ptx.h"
#include "kernels/cuda/tensor_map.cuh"

namespace heddle::kernels::cuda {

// (kRows of m or n, 64 of k) in bf16 under the 128-byte swizzle, at a multiple of 1024 bytes. k-major: kRows rows of 128 bytes (64 k). mn-major:
// panels of 64 rows (k) of 128 bytes (64 of m or n). Either way 64 rows of m or n take kPanelBytes, one after the other.
template <Major kMajor, int kRows>
struct OperandTile {
  static_assert(kRows % 64 == 0 && kRows <= 256);
  static constexpr int kBlockK = 64, kPanelBytes = 64 * 128, kBytes = kRows / 64 * kPanelBytes;
  static constexpr bool kByK = kMajor == Major::k;

  // Host. The matrix it is cut out of: (rows of m or n, k), stored the other way round if mn-major.
  static CUtensorMap map(const bf16* matrix, int rows, int k, int64_t ld) {
    return kByK ? tensor_map(matrix, DType::bf16, rows, k, ld, kRows, kBlockK) : tensor_map(matrix, DType::bf16, k, rows, ld, kBlockK, 64);
  }

  // thread. The copies that fill the tile at shared address `smem` from (row, k) on: copy(to, innermost coordinate, outer coordinate) for each.
  template <class Copy>
  __device__ static __forceinline__ void load(uint32_t smem, int row, int k, const Copy& copy) {
    if constexpr (kByK) {
      copy(smem, k, row);
    } else {
#pragma unroll
      for (int panel = 0; panel < kRows / 64; ++panel) copy(smem + panel * kPanelBytes, row + panel * 64, k);
    }
  }

  // What wgmma is told of its first 64 rows, or of those from `row` (a multiple of 64) on, and 16 k. k-major: 8 rows of 128 bytes to the next 8 of m
  // or n. mn-major: 8 rows of k; a panel to the next 64 of m or n.
  __device__ static __forceinline__ uint64_t descriptor(uint32_t smem, int row = 0) {
    return wgmma_descriptor(smem + row / 64 * kPanelBytes, kByK ? 16 : kPanelBytes, 1024, Swizzle::bytes128);
  }
  // The same `panels` of 64 rows and `steps` of 16 k further.
  __device__ static __forceinline__ uint64_t at(uint64_t descriptor, int panels, int steps) {
    return advanced(descriptor, panels * kPanelBytes + steps * (kByK ? 16 * 2 : 16 * 128));
  }
};

}  // namespace heddle::kernels::cuda
