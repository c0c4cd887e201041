// out (R, C) (+)= alpha a + beta b, where a lies transposed: its elements are neighbours down the rows.
//
// Bound by memory: each element is read once and written once. A block brings a tile of 64 x 64 through shared memory: it reads units of 16 bytes
// down the rows of a and writes units of 16 bytes along the rows of out, single elements where these are not aligned. A warp takes two neighbouring
// units, a whole sector, of 16 rows (columns) at a time. The tile is swizzled so that neither side has a bank conflict.
#pragma once

#include "kernels/cuda/map.cuh"

namespace heddle::kernels::cuda {

inline constexpr int kTransposeThreads = 256, kTransposeTile = 64;

// Element (row, column) of the tile is word column * 64 + (row ^ flip(column)). Lanes that write hold two units of kFrom rows in 16 columns, lanes
// that read two units of kTo columns in 16 rows (32 rows, 32 columns where the width is 1). Their banks are distinct because the low bits of the
// column go to bits of the row that those lanes do not tell apart: bit log2(kTo) to bit 4, the others in order to 0..3 without log2(kFrom).
template <int kFrom, int kTo>
constexpr int flip(int column) {
  if constexpr (kFrom == 1) return column % 32;
  int flipped = 0;
  for (int from_bit = 0, to_bit = 0; from_bit < 4; ++from_bit) {
    const int set = column >> from_bit & 1;
    if (1 << from_bit == kTo) {
      flipped |= set << 4;
    } else {
      if (1 << to_bit == kFrom) ++to_bit;
      flipped |= set << to_bit++;
    }
  }
  return flipped;
}

// Do the 32 lanes that write (each its element e of a unit), and those that read, meet 32 banks?
template <int kFrom, int kTo>
constexpr bool free_of_conflicts() {
  const auto all_banks = [](const auto& word) {
    uint32_t banks = 0;
    for (int lane = 0; lane < 32; ++lane) banks |= 1u << (word(lane) % 32);
    return banks == ~0u;
  };
  const auto word = [](int row, int column) { return column * kTransposeTile + (row ^ flip<kFrom, kTo>(column)); };
  bool free = true;
  for (int e = 0; e < kFrom; ++e) {
    free = free && all_banks([&](int lane) { return kFrom == 1 ? word(lane, 5) : word(lane % 2 * kFrom + e, lane / 2); });
  }
  for (int e = 0; e < kTo; ++e) {
    free = free && all_banks([&](int lane) { return kTo == 1 ? word(5, lane) : word(lane / 2, lane % 2 * kTo + e); });
  }
  return free;
}

struct TransposeParams {
  std::byte *a, *b, *out;               // b may be null
  bool half_a, half_b, half_out;        // bf16, where the type is AnyFloat
  int64_t rows, columns;                // of a matrix of out
  int64_t a_column, b_row, out_row;     // elements between columns of a, rows of b and out
  int64_t across, tiles;                // tiles of a row of tiles, of a matrix
  int64_t size[2];                      // matrices: the axes around it
  int64_t a_at[2], b_at[2], out_at[2];  // elements between matrices
  float alpha, beta;
  bool accumulate;
};

// Which unit of the tile a thread takes in pass `step`: `line` across the units, `first` element along them.
template <int kWidth>
__device__ __forceinline__ void tile_unit(int step, int& first, int& line) {
  const int lane = static_cast<int>(threadIdx.x) % 32, turn = step * (kTransposeThreads / 32) + static_cast<int>(threadIdx.x) / 32;
  if constexpr (kWidth == 1) {
    first = turn % 2 * 32 + lane;
    line = turn / 2;
  } else {
    constexpr int kPairs = kTransposeTile / kWidth / 2;
    first = (turn % kPairs * 2 + lane % 2) * kWidth;
    line = turn / kPairs * 16 + lane / 2;
  }
}

template <int kFrom, int kTo, class A, class Out>
__global__ void __launch_bounds__(kTransposeThreads) transpose_kernel(const TransposeParams p) {
  constexpr int kTile = kTransposeTile, kReads = kTile * kTile / kTransposeThreads / kFrom, kWrites = kTile * kTile / kTransposeThreads / kTo;
  static_assert(free_of_conflicts<kFrom, kTo>());
  HEDDLE_SHARED(float, tile, [kTile * kTile]);
  const int64_t matrix = blockIdx.x / p.tiles, in_matrix = blockIdx.x - matrix * p.tiles;
  const int64_t outer = matrix / p.size[0], inner = matrix - outer * p.size[0];
  const int64_t row0 = in_matrix / p.across * kTile, column0 = in_matrix % p.across * kTile;
  const int rows = static_cast<int>(p.rows - row0 < kTile ? p.rows - row0 : kTile);
  const int columns = static_cast<int>(p.columns - column0 < kTile ? p.columns - column0 : kTile);
  const auto within = [](int first, int width, int limit) { return limit - first < width ? (limit > first ? limit - first : 0) : width; };

  const int64_t a0 = inner * p.a_at[0] + outer * p.a_at[1] + row0 + column0 * p.a_column;
  uint32_t raw[kReads][kFrom] = {};
#pragma unroll
  for (int i = 0; i < kReads; ++i) {
    int row, column;
    tile_unit<kFrom>(i, row, column);
    const int count = column < columns ? within(row, kFrom, rows) : 0;
    if (count > 0) thread::load_unit<A, kFrom>(p.a, a0 + row + column * p.a_column, p.half_a, count, raw[i]);
  }
#pragma unroll
  for (int i = 0; i < kReads; ++i) {
    int row, column;
    tile_unit<kFrom>(i, row, column);
    const int count = column < columns ? within(row, kFrom, rows) : 0;
    if (count == 0) continue;
    float values[kFrom];
    thread::unpack_unit<A, kFrom>(raw[i], p.half_a, values);
    const int flipped = flip<kFrom, kTo>(column);
#pragma unroll
    for (int e = 0; e < kFrom; ++e) {
      if (e < count) tile[column * kTile + ((row + e) ^ flipped)] = values[e];
    }
  }
  __syncthreads();

  const int64_t b0 = inner * p.b_at[0] + outer * p.b_at[1] + row0 * p.b_row + column0;
  const int64_t out0 = inner * p.out_at[0] + outer * p.out_at[1] + row0 * p.out_row + column0;
#pragma unroll
  for (int i = 0; i < kWrites; ++i) {
    int row, column;
    tile_unit<kTo>(i, column, row);
    const int count = row < rows ? within(column, kTo, columns) : 0;
    if (count == 0) continue;
    float values[kTo];
    const int flipped = row ^ flip<kFrom, kTo>(column);
#pragma unroll
    for (int e = 0; e < kTo; ++e) values[e] = e < count ? p.alpha * tile[(column + e) * kTile + (flipped ^ flip<kFrom, kTo>(e))] : 0.0f;
    uint32_t other[kTo] = {};
    float more[kTo];
    if (p.b != nullptr) {
      const int64_t at = b0 + row * p.b_row + column;
      const auto add_b = [&](auto zero) {
        using B = decltype(zero);
        thread::load_unit<B, kTo>(p.b, at, p.half_b, count, other);
        thread::unpack_unit<B, kTo>(other, p.half_b, more);
#pragma unroll
        for (int e = 0; e < kTo; ++e) values[e] = fmaf(p.beta, more[e], values[e]);
      };
      if constexpr (kTo == 1) {
        add_b(AnyFloat{});
      } else {
        p.half_b ? add_b(bf16{}) : add_b(float{});
      }
    }
    const int64_t at = out0 + row * p.out_row + column;
    if (p.accumulate) {
      thread::load_unit<Out, kTo>(p.out, at, p.half_out, count, other);
      thread::unpack_unit<Out, kTo>(other, p.half_out, more);
#pragma unroll
      for (int e = 0; e < kTo; ++e) values[e] += more[e];
    }
    thread::store_unit<Out, kTo>(p.out, at, p.half_out, count, values);
  }
}

template <int kFrom, int kTo, class A, class Out>
void launch_transpose(const TransposeParams& p, Stream stream) {
  HEDDLE_LAUNCH((transpose_kernel<kFrom, kTo, A, Out>), static_cast<unsigned>(p.tiles * p.size[0] * p.size[1]), kTransposeThreads, 0, stream, p);
}

}  // namespace heddle::kernels::cuda
