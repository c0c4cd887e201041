// bf16 tiles in shared memory: swizzled so that ldmatrix meets no bank conflict, filled by cp.async with zeros beyond the tensor's edge.
#pragma once

#include "kernels/arch/ptx.h"

namespace heddle::kernels::cuda {

// A tile of rows of kColumns bf16 (32, 64, 96, 128 or 256). Its 16-byte chunks are permuted within a row; `at` is the byte offset of chunk `chunk` of
// `row`.
template <int kColumns>
struct SwizzledTile {
  static_assert(kColumns == 32 || kColumns == 96 || kColumns % 64 == 0);
  static constexpr int kChunks = kColumns / 8;  // of a row
  // Chunks that change places with each other: those of 128 bytes, or of 64 where rows are an odd number of 64 bytes.
  static constexpr int kGroup = kColumns % 64 == 0 ? kChunks : 4;

  __device__ static __forceinline__ constexpr uint32_t at(int row, int chunk) {
    const int stored = kGroup == 4 ? swizzled_chunk_64(row, chunk) : swizzled_chunk_128(row, chunk);
    return static_cast<uint32_t>(row * kColumns * 2 + stored * 16);
  }
};

// block. Copies (kRows, kColumns) tiles out of a row-major matrix, zeros beyond its edge. Each thread keeps the address of its first chunk and what
// is left of the matrix from there.
template <int kRows, int kColumns, int kThreads>
class AsyncTileLoader {
 public:
  // In a pass the threads cover kRowsPerPass rows of one group of chunks; in the next of the next group.
  static constexpr int kChunks = SwizzledTile<kColumns>::kGroup, kGroups = SwizzledTile<kColumns>::kChunks / kChunks;
  static constexpr int kRowsPerPass = kThreads / kChunks, kPasses = kRows / kRowsPerPass;
  // A pass moves on by whole patterns of the swizzle, so all passes share one offset.
  static_assert(kThreads % kChunks == 0 && kRows % kRowsPerPass == 0 && kRowsPerPass % 8 == 0);

  // The tile starts at matrix[row][column] of (rows, columns), `ld` elements between rows (a multiple of 8). thread: threadIdx.x.
  __device__ __forceinline__ AsyncTileLoader(const bf16* matrix, int64_t ld, int rows, int columns, int row, int column,
                                             int thread = static_cast<int>(threadIdx.x))
      : ld_(ld) {
    const int own_row = thread / kChunks, chunk = thread % kChunks;
    source_ = matrix + (row + own_row) * ld + column + chunk * 8;
    rows_left_ = rows - row - own_row;
    columns_left_ = columns - column - chunk * 8;
    offset_ = SwizzledTile<kColumns>::at(own_row, chunk);
  }

  // Starts the copies of the current tile to shared address `tile`.
  __device__ __forceinline__ void load(uint32_t tile) const {
#pragma unroll
    for (int group = 0; group < kGroups; ++group) {
      const int left = columns_left_ - group * kChunks * 8, columns = left < 0 ? 0 : left > 8 ? 8 : left;
#pragma unroll
      for (int pass = 0; pass < kPasses; ++pass) {
        const int valid = pass * kRowsPerPass < rows_left_ ? columns : 0;
        // A copy of no bytes reads nothing, wherever its source points.
        ptx::cp_async_zfill<16>(tile + offset_ + (pass * kRowsPerPass * kColumns + group * kChunks * 8) * 2,
                                source_ + pass * kRowsPerPass * ld_ + group * kChunks * 8, static_cast<uint32_t>(valid) * 2);
      }
    }
  }

  __device__ __forceinline__ void advance(int rows, int columns) {
    source_ += rows * ld_ + columns;
    rows_left_ -= rows;
    columns_left_ -= columns;
  }

 private:
  const bf16* source_;
  int64_t ld_;
  int rows_left_, columns_left_;
  uint32_t offset_;
};

}  // namespace heddle::kernels::cuda
