// Which threads normalise a row, as a pure function of its length.
#pragma once

#include <cstdint>

#include "kernels/api/norm.h"

namespace heddle::kernels::cuda {

struct NormConfig {
  NormKind kind = NormKind::layer;
  int team = 32;      // threads that share a row: a warp, or the whole block
  int vectors = 1;    // of 8 elements, held by each thread of the team
  int threads = 128;  // of a block

  constexpr int rows_per_block() const { return threads / team; }
  constexpr int longest_row() const { return team * vectors * 8; }
  friend constexpr bool operator==(const NormConfig&, const NormConfig&) = default;
};

// A row is read once and stays in registers: up to 1024 elements a warp holds it alone and needs no barrier; up to 8192 a block of 256 does.
constexpr NormConfig norm_config(NormKind kind, int64_t columns) {
  for (int team : {32, 256}) {
    for (int vectors : {1, 2, 4}) {
      const NormConfig config{kind, team, vectors, team == 32 ? 128 : 256};
      if (columns <= config.longest_row()) return config;
    }
  }
  return {kind, 256, 0, 256};  // longest_row() == 0: longer than any
}

}  // namespace heddle::kernels::cuda
