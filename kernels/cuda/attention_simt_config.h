// Tiles of attention without tensor cores, by head dimension.
#pragma once

#include <cstddef>

namespace heddle::kernels::cuda {

// Every tile is of 32 queries and 32 keys, in f32 in shared memory. Of the 16 by 8 threads each owns two rows and four columns of the scores, and of
// a sum the same two rows and head_dim / 8 columns.
struct AttentionSimtConfig {
  int head_dim = 64;  // the most columns: 64, 128 or 256

  static constexpr int kTile = 32, kThreads = 128;
  static constexpr int kScoreRow = kTile + 4;  // floats from one row of scores to the next

  // Floats from one row of a tile of D columns to the next. Four more than a multiple of 32: eight rows of 16 bytes then meet all banks.
  static constexpr int tile_row(int d) { return (d + 31) / 32 * 32 + 4; }
  static constexpr int tile_floats(int d) { return kTile * tile_row(d); }
  static constexpr int kScoreFloats = kTile * kScoreRow;

  // Blocks that share a multiprocessor at least: as many as its registers let, not more for the price of some.
  constexpr int blocks() const { return head_dim == 64 ? 4 : head_dim == 128 ? 3 : 2; }

  // Shared memory of a launch with D columns.
  static constexpr size_t forward_bytes(int d) { return sizeof(float) * static_cast<size_t>(3 * tile_floats(d) + kScoreFloats); }  // Q, K, V; P
  static constexpr size_t keys_bytes(int d) {
    return sizeof(float) * static_cast<size_t>(4 * tile_floats(d) + 2 * kScoreFloats + 3 * kTile);
  }  // K, V, Q, dO; P, dS; facts
  static constexpr size_t queries_bytes(int d) { return sizeof(float) * static_cast<size_t>(4 * tile_floats(d) + kScoreFloats); }  // Q, dO, K, V; dS
};

inline constexpr int kAttentionSimtMostColumns = 256;

}  // namespace heddle::kernels::cuda
