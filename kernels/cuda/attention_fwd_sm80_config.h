// Tiles of the Ampere attention forward pass, by head dimension.
#pragma once

#include <cstdint>

namespace heddle::kernels::cuda {

struct AttentionFwdSm80Config {
  int head_dim = 64;
  int block_m = 128;  // queries of a block
  int block_n = 128;  // keys of a step
  int warps = 4;      // each owns block_m / warps queries and every key, so softmax crosses no warp

  constexpr int threads() const { return 32 * warps; }
  constexpr int warp_m() const { return block_m / warps; }
  constexpr int shared_bytes() const { return (block_m + 2 * block_n) * head_dim * 2; }  // Q, one K tile, one V tile
};

// Two blocks share a multiprocessor. FlashAttention-2 takes twice as many keys a step on A100 (Dao 2023, section 3.3); with those the compiler spills
// a few registers, with these it does not.
inline constexpr AttentionFwdSm80Config kAttentionFwd64{64, 128, 64, 4};
inline constexpr AttentionFwdSm80Config kAttentionFwd96{96, 128, 32, 4};
inline constexpr AttentionFwdSm80Config kAttentionFwd128{128, 128, 32, 4};

// Key tiles [first, last) that a block of queries visits, and those in the middle that need no mask: tiles [unmasked_first, unmasked_last) are
// visible whole to every query of the block.
struct KeyTiles {
  int first = 0, last = 0, unmasked_first = 0, unmasked_last = 0;
};

// For queries at key positions position..position + queries - 1. Query i sees keys first_key(i) <= j <= its position; lowest_first_key and
// highest_first_key are the least and the greatest first_key(i).
constexpr KeyTiles key_tiles(int position, int queries, int keys, int lowest_first_key, int highest_first_key, int block_n) {
  const int end = position + queries < keys ? position + queries : keys;  // one past the last key that any query sees
  KeyTiles tiles;
  tiles.first = lowest_first_key / block_n;
  tiles.last = (end + block_n - 1) / block_n;
  tiles.unmasked_first = (highest_first_key + block_n - 1) / block_n;
  tiles.unmasked_last = (position + 1 < keys ? position + 1 : keys) / block_n;
  if (tiles.unmasked_first < tiles.first) tiles.unmasked_first = tiles.first;
  if (tiles.unmasked_last > tiles.last) tiles.unmasked_last = tiles.last;
  if (tiles.unmasked_last < tiles.unmasked_first) tiles.unmasked_last = tiles.unmasked_first;
  return tiles;
}

}  // namespace heddle::kernels::cuda
