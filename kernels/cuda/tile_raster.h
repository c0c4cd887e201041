// The order in which blocks visit the tiles of a matrix product.
#pragma once

#include <cstdint>

#include "kernels/api/types.h"

namespace heddle::kernels::cuda {

inline constexpr int kRasterRows = 8;  // rows of tiles that run side by side

struct TileAt {
  int m = 0, n = 0;  // in tiles
};

// Tile `id` of 0..tiles_m * tiles_n - 1. Ids run down `group` rows of tiles before they move one column on, so the blocks that run together read few
// rows of A and few columns of B and find them in L2. The last group may be shorter. (Grouped ordering as in the Triton matmul tutorial.)
HEDDLE_HOST_DEVICE constexpr TileAt tile_at(int id, int tiles_m, int tiles_n, int group) {
  const int ids_per_group = group * tiles_n, first = id / ids_per_group * group;
  const int rows = tiles_m - first < group ? tiles_m - first : group;
  const int inside = id % ids_per_group;
  return {first + inside % rows, inside / rows};
}

HEDDLE_HOST_DEVICE constexpr int ceil_div(int n, int d) {
  return (n + d - 1) / d;
}

}  // namespace heddle::kernels::cuda
