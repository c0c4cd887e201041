// Flat arrays of one length by warps: 128 elements a tile, four neighbours a lane, whatever the arrays' alignment. Arrays of f32 are moved 16 bytes a
// lane and bf16 ones 8, so that each instruction of a warp touches whole sectors and no other.
#pragma once

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/piece.cuh"

namespace heddle::kernels::cuda {

inline constexpr int kFlatTile = 128;      // elements: a warp's at a time
inline constexpr int kFlatThreads = 256;   // of a block
inline constexpr int kFlatTilesAWarp = 4;  // one after the other: what a block works out first is shared by 4096 elements
inline constexpr int kFlatTilesABlock = kFlatThreads / 32 * kFlatTilesAWarp;

constexpr int64_t flat_tiles(int64_t n) {
  return (n + kFlatTile - 1) / kFlatTile;
}
constexpr int64_t flat_blocks(int64_t n) {
  return (flat_tiles(n) + kFlatTilesABlock - 1) / kFlatTilesABlock;
}
// Can four neighbours of each of these be moved at once?
template <class... Pointers>
bool flat_wide(const Pointers*... arrays) {
  return ((reinterpret_cast<uintptr_t>(arrays) % (4 * sizeof(*arrays)) == 0) && ...);
}

// A lane's four elements of a tile that starts at `begin` of arrays of n.
struct FlatPlace {
  int64_t at, left;  // the first, and how many there are from it on, maybe none
  bool wide;

  __device__ __forceinline__ FlatPlace(int64_t begin, int64_t n, bool aligned)
      : at(begin + 4 * static_cast<int64_t>(threadIdx.x % 32)), left(n - at), wide(aligned && left >= 4) {}

  // Elements past the end are 0.
  template <class T>
  __device__ __forceinline__ void load(const T* array, float (&out)[4]) const {
    if (wide) {
      Piece<T, 4>::load(array + at, out);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) out[e] = e < left ? to_float(array[at + e]) : 0.0f;
    }
  }
  template <class T>
  __device__ __forceinline__ void store(T* array, const float (&values)[4]) const {
    if (wide) {
      Piece<T, 4>::store(array + at, values);
    } else {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        if (e < left) array[at + e] = from_float<T>(values[e]);
      }
    }
  }
};

// The warp's tiles of this block: body(tile) for each of at most kFlatTilesAWarp, neighbouring warps on neighbouring tiles.
template <class Body>
__device__ __forceinline__ void for_flat_tiles(int64_t tiles, const Body& body) {
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kFlatTilesABlock + threadIdx.x / 32;
#pragma unroll 1
  for (int i = 0; i < kFlatTilesAWarp; ++i) {
    const int64_t tile = first + i * (kFlatThreads / 32);
    if (tile < tiles) body(tile);
  }
}

}  // namespace heddle::kernels::cuda
