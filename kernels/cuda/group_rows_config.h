// How n row numbers below or at `rows` are sorted: see group_rows.cuh. Pure functions of the two.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

namespace heddle::kernels::cuda {

struct GroupPlan {
  static constexpr int kThreads = 256, kWarps = kThreads / 32;
  static constexpr int kDigitBits = 9, kDigits = 1 << kDigitBits;  // two passes for up to 2^18 - 1 rows
  static constexpr int kMostBlocks = 64;                           // each reads the counts of all
  static constexpr int kLeastPerBlock = 1024;

  int n = 0;
  int64_t rows = 0;

  constexpr int passes() const {
    const int bits = std::bit_width(static_cast<uint64_t>(rows));  // `rows` itself is a number too: of what belongs to no row
    return bits <= kDigitBits ? 1 : (bits + kDigitBits - 1) / kDigitBits;
  }
  constexpr int blocks() const {
    const int wanted = (n + kLeastPerBlock - 1) / kLeastPerBlock;
    return wanted < kMostBlocks ? wanted : kMostBlocks;
  }
  // Numbers of one warp in a pass, a multiple of 32: the warps' strips follow each other, the blocks' too.
  constexpr int64_t strip() const {
    if (n == 0) return 0;
    const int64_t warps = static_cast<int64_t>(blocks()) * kWarps;
    return ((n + warps - 1) / warps + 31) / 32 * 32;
  }

  // In scratch: two arrays of n (row, index) pairs, counts (blocks, kDigits), starts (rows + 1).
  constexpr size_t pairs_bytes() const { return static_cast<size_t>(n) * 8; }
  constexpr size_t counts_at() const { return 2 * pairs_bytes(); }
  constexpr size_t starts_at() const { return counts_at() + static_cast<size_t>(blocks()) * kDigits * 4; }
  constexpr size_t bytes() const { return starts_at() + static_cast<size_t>(rows + 1) * 4; }
};

}  // namespace heddle::kernels::cuda
