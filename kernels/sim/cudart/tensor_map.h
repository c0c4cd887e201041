// What a CUtensorMap holds in the simulated machine, and how to read it back: cuTensorMapEncodeTiled (cudart_driver.cpp) writes it, the TMA
// instructions (ptx_*.cpp) read it. On a GPU the 128 bytes are opaque.
#pragma once

#include <cuda.h>

#include <cstddef>
#include <cstdint>

#include "kernels/sim/core/machine.h"

namespace heddle::sim {

inline constexpr uint32_t kMaxTensorRank = 5;

// A tiled tensor map. Dimension 0 is innermost and dense. Element i is at address + sum(i[d] * stride[d]), stride[0] = element_bytes.
struct TensorMap {
  CUtensorMapDataType type;
  uint32_t rank;                            // 1 to 5
  uint32_t element_bytes;                   // 1, 2, 4 or 8
  std::byte* address;                       // global memory, aligned to 16
  uint64_t size[kMaxTensorRank];            // elements, 1 to 2^32; unused dimensions are 1
  uint64_t stride[kMaxTensorRank];          // bytes; unused dimensions are 0
  uint32_t box[kMaxTensorRank];             // elements of the tile traversed along each dimension, 1 to 256; unused dimensions are 1
  uint32_t element_stride[kMaxTensorRank];  // 1 to 8: every how many elements of the box one is taken; [0] counts for interleaved maps only
  CUtensorMapInterleave interleave;
  CUtensorMapSwizzle swizzle;
  CUtensorMapL2promotion l2_promotion;
  CUtensorMapFloatOOBfill fill;

  // Elements taken along a dimension: ceil(box / element_stride).
  uint32_t extent(uint32_t dimension) const { return (box[dimension] + element_stride[dimension] - 1) / element_stride[dimension]; }
  // What one load writes to shared memory and counts on its mbarrier, out-of-bounds elements included.
  uint32_t tile_bytes() const;
  // Bytes after which the swizzle pattern repeats: shared-memory tiles must be aligned to it (PTX ISA, "Swizzling modes"): 1024 for 128B, 512, 256,
  // 128.
  uint32_t shared_alignment() const;
};

// False when the 128 bytes were not written by cuTensorMapEncodeTiled or were changed since.
bool decode(const CUtensorMap& map, TensorMap& out);
// The same, or a fault at the site. [thread]
TensorMap decode(const CUtensorMap& map, const Site& site);

// Place of byte `offset` of a tile inside shared memory under a swizzle mode, relative to a tile base that has shared_alignment(): the 16-byte chunk
// number is XORed with the number of the 128-byte line (PTX ISA, "Swizzling modes"): mode 128B: bits 4-6 ^= bits 7-9; 64B: bits 4-5 ^= bits 7-8;
// 32B: bit 4 ^= bit 7.
constexpr uint32_t swizzled(uint32_t offset, CUtensorMapSwizzle mode) {
  switch (mode) {
    case CU_TENSOR_MAP_SWIZZLE_128B: return offset ^ ((offset >> 7 & 7u) << 4);
    case CU_TENSOR_MAP_SWIZZLE_64B: return offset ^ ((offset >> 7 & 3u) << 4);
    case CU_TENSOR_MAP_SWIZZLE_32B: return offset ^ ((offset >> 7 & 1u) << 4);
    default: return offset;
  }
}

}  // namespace heddle::sim
