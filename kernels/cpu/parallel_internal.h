// Threads of the CPU kernels. Work is cut into tiles that are a function of the shape alone, and a tile is computed by one thread from start
// to end: no result depends on how many threads there are. `body` must not throw: inputs are checked before.
#pragma once

#include <algorithm>
#include <cstdint>

namespace heddle::kernels::cpu {

// Below this many elements waking the other threads costs more than it saves.
inline constexpr int64_t kSerialWork = 32 * 1024;
// Elements a tile should hold: 64 KiB of f32, enough to hide the loop's overhead and small enough to balance.
inline constexpr int64_t kTileElements = 16 * 1024;

constexpr int64_t ceil_div(int64_t a, int64_t b) {
  return (a + b - 1) / b;
}

// body(tile) for every tile of [0, tiles); `work` is what all of them touch together, in elements.
template <class Body>
void for_each_tile(int64_t tiles, int64_t work, const Body& body) {
#pragma omp parallel for schedule(static) if (tiles > 1 && work > kSerialWork)
  for (int64_t tile = 0; tile < tiles; ++tile) body(tile);
}

// The same for tiles of unequal work: a thread takes the next one when it is done.
template <class Body>
void for_each_uneven_tile(int64_t tiles, int64_t work, const Body& body) {
#pragma omp parallel for schedule(dynamic) if (tiles > 1 && work > kSerialWork)
  for (int64_t tile = 0; tile < tiles; ++tile) body(tile);
}

// body(begin, end) over [0, n), cut every `per_tile` items; `work` counts all n items, in elements.
template <class Body>
void for_tiles(int64_t n, int64_t per_tile, int64_t work, const Body& body) {
  for_each_tile(ceil_div(n, per_tile), work, [&](int64_t tile) { body(tile * per_tile, std::min(n, (tile + 1) * per_tile)); });
}

// Rows of `columns` elements that make up a tile.
constexpr int64_t rows_per_tile(int64_t columns) {
  return std::max<int64_t>(1, kTileElements / std::max<int64_t>(1, columns));
}

}  // namespace heddle::kernels::cpu
