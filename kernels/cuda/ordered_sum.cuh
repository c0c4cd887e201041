// Sums over rows or over blocks whose order follows from the shape alone: partial sums into scratch, each in a fixed order, which are then added in a
// fixed order; by the block that comes last where one block can do it, by a second launch where the sums are many.
#pragma once

#include "kernels/cuda/rows.cuh"

namespace heddle::kernels::cuda {

namespace grid {

// block, one barrier behind what thread 0 wrote last. Whether this is the last block of the grid to get here; it then sees what every thread 0 wrote
// before, and the ticket is zero again.
__device__ __forceinline__ bool comes_last(uint32_t* ticket, bool& is_last) {
  if (threadIdx.x == 0) {
    // Release: what this block wrote is visible to whoever reads the raised ticket. Acquire: the last block sees all of it.
    is_last = ptx::atom_add_acq_rel_gpu(ticket, 1) == gridDim.x - 1;
    if (is_last) *ticket = 0;
  }
  __syncthreads();
  return is_last;
}

}  // namespace grid

// ---- sums over rows: one for every column, of up to two terms ----

// Rows are cut in tiles, and each of the eight warps of a block adds every eighth row of its tile.
struct ColumnTiles {
  static constexpr int kThreads = 256, kWarps = kThreads / 32, kLeastRows = 64, kMostTiles = 256;
  int tiles, rows_per_tile;

  static constexpr ColumnTiles of(int64_t rows) {
    const int64_t wanted = (rows + kLeastRows - 1) / kLeastRows;
    const int64_t tiles = wanted < 1 ? 1 : wanted < kMostTiles ? wanted : kMostTiles, each = (rows + tiles - 1) / tiles;
    return {static_cast<int>(each > 0 ? (rows + each - 1) / each : 1), static_cast<int>(each)};
  }
};

// Partial sums as they lie in scratch: (tiles, sums, columns), a row of columns padded to whole pieces.
struct Partials {
  float* data;
  int tiles, sums, columns;

  HEDDLE_HOST_DEVICE constexpr int64_t row() const { return (int64_t{columns} + 7) / 8 * 8; }
  HEDDLE_HOST_DEVICE float* of(int tile, int sum) const { return data + (int64_t{tile} * sums + sum) * row(); }
  size_t bytes() const { return sizeof(float) * static_cast<size_t>(int64_t{tiles} * sums * row()); }
};

// Terms: `kSums` sums; fetch(row, piece) loads what a row's piece needs, add(row, fetched, sums) adds it.
template <class Terms>
__global__ void __launch_bounds__(ColumnTiles::kThreads)
    column_partials_kernel(const Terms terms, int rows, int rows_per_tile, bool wide, const Partials out) {
  using T = typename Terms::Element;
  constexpr int kSums = Terms::kSums, kElements = kWidth<T>, kWarps = ColumnTiles::kWarps, kInFlight = 4, kSlots = 32 * kElements;
  HEDDLE_SHARED(float, of_warps, [kWarps][kSums * kSlots]);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const Piece<T, 32> at(wide, static_cast<int>(blockIdx.x), lane, out.columns);
  const int begin = static_cast<int>(blockIdx.y) * rows_per_tile, end = begin + rows_per_tile < rows ? begin + rows_per_tile : rows;

  float sums[kSums][kElements] = {};
  int row = begin + warp;
  for (; row + (kInFlight - 1) * kWarps < end; row += kInFlight * kWarps) {
    typename Terms::Fetched fetched[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) fetched[i] = terms.fetch(row + i * kWarps, at);
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) terms.add(row + i * kWarps, fetched[i], sums);
  }
  for (; row < end; row += kWarps) terms.add(row, terms.fetch(row, at), sums);

#pragma unroll
  for (int k = 0; k < kSums; ++k) {
#pragma unroll
    for (int e = 0; e < kElements; ++e) of_warps[warp][k * kSlots + e * 32 + lane] = sums[k][e];
  }
  __syncthreads();
  for (int slot = static_cast<int>(threadIdx.x); slot < kSums * kSlots; slot += ColumnTiles::kThreads) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) sum += of_warps[w][slot];
    const int e = slot % kSlots / 32, of_lane = slot % 32;
    const Piece<T, 32> of_slot(wide, static_cast<int>(blockIdx.x), of_lane, out.columns);
    if (e < of_slot.valid) out.of(static_cast<int>(blockIdx.y), slot / kSlots)[of_slot.first + e] = sum;
  }
}

template <class Terms>
void launch_column_partials(const Terms& terms, int rows, bool wide, const Partials& out, Stream stream) {
  const ColumnTiles tiles = ColumnTiles::of(rows);
  const dim3 blocks(static_cast<unsigned>(pieces_of<typename Terms::Element, 32>(out.columns)), static_cast<unsigned>(tiles.tiles));
  HEDDLE_LAUNCH((column_partials_kernel<Terms>), blocks, ColumnTiles::kThreads, 0, stream, terms, rows, tiles.rows_per_tile, wide, out);
}

struct ColumnSinks {
  RowSink to[2];  // data null: not wanted
};

inline constexpr int kAddThreads = 256;

// sinks[k] (columns) (+)= the sum of the tiles' k-th rows: a block adds 32 columns, each warp every eighth tile, then the warps in their order.
template <class T>
__global__ void __launch_bounds__(kAddThreads) add_partials_kernel(const Partials from, const ColumnSinks sinks) {
  constexpr int kWarps = kAddThreads / 32;
  HEDDLE_SHARED(float, of_warps, [kWarps][32]);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int column = static_cast<int>(blockIdx.x) * 32 + lane, k = static_cast<int>(blockIdx.y);
  const RowSink sink = k == 0 ? sinks.to[0] : sinks.to[1];
  if (sink.data == nullptr) return;
  float sum = 0;
  if (column < from.columns) {
#pragma unroll 8
    for (int tile = warp; tile < from.tiles; tile += kWarps) sum += from.of(tile, k)[column];
  }
  of_warps[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= from.columns) return;
  sum = of_warps[0][lane];
#pragma unroll
  for (int w = 1; w < kWarps; ++w) sum += of_warps[w][lane];
  const auto put = [&](auto* to) { *to = from_float<std::remove_pointer_t<decltype(to)>>(sink.accumulate ? to_float(*to) + sum : sum); };
  if (std::is_same_v<T, float> || sink.f32) {
    put(reinterpret_cast<float*>(sink.data) + column);
  } else {
    put(reinterpret_cast<T*>(sink.data) + column);
  }
}

template <class T>
void launch_add_partials(const Partials& from, const ColumnSinks& sinks, Stream stream) {
  const dim3 blocks(static_cast<unsigned>((from.columns + 31) / 32), static_cast<unsigned>(from.sums));
  HEDDLE_LAUNCH((add_partials_kernel<T>), blocks, kAddThreads, 0, stream, from, sinks);
}

}  // namespace heddle::kernels::cuda
