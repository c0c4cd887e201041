// Tiles of the Ampere attention backward passes, by head dimension.
#pragma once

#include <cstdint>

namespace heddle::kernels::cuda {

// Which side a block owns: keys (K and V; it gives dK and dV) or queries (Q and dO; it gives dQ). The other side streams past.
enum class AttentionSide : uint8_t { keys, queries };

struct AttentionBwdSm80Config {
  AttentionSide side = AttentionSide::keys;
  int head_dim = 64;
  int block_m = 128;  // rows that a block owns
  int block_n = 64;   // rows of the other side in a step
  int warps = 8;      // each owns block_m / warps rows and meets every row of the other side
  int stages = 2;     // steps in shared memory

  constexpr int threads() const { return 32 * warps; }
  constexpr int warp_m() const { return block_m / warps; }
  constexpr int own_bytes() const { return 2 * block_m * head_dim * 2; }
  constexpr int tiles_bytes() const { return 2 * block_n * head_dim * 2; }                         // of a stage
  constexpr int facts_bytes() const { return side == AttentionSide::keys ? 3 * block_n * 4 : 0; }  // of a stage: of each query lse, delta, document
  constexpr int shared_bytes() const { return own_bytes() + stages * (tiles_bytes() + facts_bytes()); }
};

inline constexpr int kAttentionBwdBlockM = 128;  // of both passes, for every head dimension

// Rows of 16 for each warp read every fragment of the other side for themselves alone: the products are then as fast as shared memory, about.
// Rows of 32 halve that, and fit the registers with a head dimension of 64. More rows a step than these spill.
inline constexpr AttentionBwdSm80Config kAttentionBwdKeys64{AttentionSide::keys, 64, kAttentionBwdBlockM, 32, 4, 4};
inline constexpr AttentionBwdSm80Config kAttentionBwdKeys96{AttentionSide::keys, 96, kAttentionBwdBlockM, 64, 8, 2};
inline constexpr AttentionBwdSm80Config kAttentionBwdKeys128{AttentionSide::keys, 128, kAttentionBwdBlockM, 64, 8, 2};
inline constexpr AttentionBwdSm80Config kAttentionBwdQueries64{AttentionSide::queries, 64, kAttentionBwdBlockM, 64, 4, 2};
inline constexpr AttentionBwdSm80Config kAttentionBwdQueries96{AttentionSide::queries, 96, kAttentionBwdBlockM, 64, 8, 2};
inline constexpr AttentionBwdSm80Config kAttentionBwdQueries128{AttentionSide::queries, 128, kAttentionBwdBlockM, 64, 8, 2};

}  // namespace heddle::kernels::cuda
