// Gradient of an embedding: see kernels/api/embedding.h. Each row of the table is one warp's (and its neighbours' along the columns): it adds the
// rows of d_out that belong to it in token order, which group_rows.cuh has found (positions without documents need no search), and stores the sum
// once.
//
// Bound by memory: d_out is read once, 2 C bytes a token in bf16, and every row of the table written once, 4 C bytes in f32 (of one that accumulates:
// rows that occur are read and written). A row that many tokens share is a chain of additions with 128 bytes a lane in flight: k tokens take about
// k / 16 round trips to memory (k / 8 into bf16 tables), which shows when one token holds more than a few percent of a large batch.
#pragma once

#include "kernels/cuda/embedding_rows.cuh"
#include "kernels/cuda/group_rows.cuh"
#include "kernels/cuda/piece.cuh"

namespace heddle::kernels::cuda {

inline constexpr int kScatterThreads = 256, kScatterWarps = kScatterThreads / 32;

// Number n of the batch, with n = b length + t, asked for the row of its token or of its position.
template <class Rows>
struct RowOf {
  static constexpr bool kKnown = false;
  Rows rows;
  int length, none;

  __device__ __forceinline__ int operator()(int n) const {
    const int b = n / length, t = n - b * length;
    const int64_t row = rows.row(b, t, true);
    return row < 0 ? none : static_cast<int>(row);
  }
};

template <class T, class Out>
struct ScatterParams {
  const T* d_out;
  int64_t d_out_b, d_out_t;
  Out* table;
  int64_t table_row;
  bool accumulate;
  const int32_t* starts;  // (rows + 1) and
  const uint2* sorted;    // (n), or null: row r has number r of every line of the batch
  int rows, columns, batch, length;
};

template <class T, class Out, int kElements>
__global__ void __launch_bounds__(kScatterThreads, 2) embedding_scatter_kernel(const ScatterParams<T, Out> p) {
  using Vector = Piece<T, kElements>;
  constexpr int kAhead = Vector::kBytes == 16 ? 8 : 16;  // loads in flight
  const int lane = static_cast<int>(threadIdx.x) % 32, row = static_cast<int>(blockIdx.x) * kScatterWarps + static_cast<int>(threadIdx.x) / 32;
  if (row >= p.rows) return;
  const int column = (static_cast<int>(blockIdx.y) * 32 + lane) * kElements;
  const bool there = column < p.columns;
  const int first = p.sorted != nullptr ? p.starts[row] : 0;
  const int count = p.sorted != nullptr ? p.starts[row + 1] - first : row < p.length ? p.batch : 0;
  if (count == 0 && p.accumulate) return;

  Out* const to = p.table + row * p.table_row + column;
  float sum[kElements] = {};
  if (p.accumulate && there) Piece<Out, kElements>::load(to, sum);
  for (int done = 0; done < count; done += 32) {
    // Where the next 32 rows of d_out begin, one in each lane.
    int64_t offset = 0;
    if (done + lane < count) {
      const int n = p.sorted != nullptr ? static_cast<int>(p.sorted[first + done + lane].y) : 0;
      const int b = p.sorted != nullptr ? n / p.length : done + lane, t = p.sorted != nullptr ? n - b * p.length : row;
      offset = b * p.d_out_b + t * p.d_out_t;
    }
    const uint32_t low = static_cast<uint32_t>(offset), high = static_cast<uint32_t>(static_cast<uint64_t>(offset) >> 32);
    const int now = count - done < 32 ? count - done : 32;
    for (int i = 0; i < now; i += kAhead) {
      typename Vector::Packed packed[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        const uint64_t at = static_cast<uint64_t>(ptx::shfl_idx(high, i + j)) << 32 | ptx::shfl_idx(low, i + j);
        if (i + j < now && there) packed[j] = Vector::load(p.d_out + static_cast<int64_t>(at) + column);
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (i + j >= now || !there) continue;
        float d[kElements];
        Vector::unpack(packed[j], d);
#pragma unroll
        for (int e = 0; e < kElements; ++e) sum[e] += d[e];
      }
    }
  }
  if (there) Piece<Out, kElements>::store(to, sum);
}

template <class T, class Out, int kElements>
void launch_embedding_scatter(const ScatterParams<T, Out>& p, Stream stream) {
  const unsigned slices = static_cast<unsigned>((p.columns + 32 * kElements - 1) / (32 * kElements));
  const unsigned blocks = static_cast<unsigned>((p.rows + int64_t{kScatterWarps} - 1) / kScatterWarps);
  HEDDLE_LAUNCH_AS((embedding_scatter_kernel<T, Out, kElements>), (LaunchShape{.grid = dim3(blocks, slices), .block = kScatterThreads}), stream, p);
}

}  // namespace heddle::kernels::cuda
