// What forward and backward attention on the CPU share: small matrix products on packed tiles, packing, and the bounds of the mask.
//
// Scores are kept transposed, keys by rows and queries by lanes: s^T (keys, queries) = k q^T. So k and v are used as they lie (only q and
// d_out are transposed, once per tile of queries), and softmax runs down the rows, every lane a query of its own.
// All tiles are in the accumulator type; sizes are fixed, so every sum has an order that depends on the shape alone.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <limits>

#include "kernels/api/attention.h"
#include "kernels/cpu/micro_product_internal.h"
#include "kernels/cpu/vec_internal.h"

namespace heddle::kernels::cpu::attention {

inline constexpr int64_t kQueries = 64;  // queries of a tile
inline constexpr int64_t kKeys = 48;     // keys of a tile: k and v of 64 columns fill three quarters of a 32 KiB L1
inline constexpr int64_t kMaxHead = 256;

template <class A>
inline constexpr int64_t kBlock = kMicroColumns<A>;  // queries handled at once

constexpr int64_t round_up(int64_t n, int64_t to) {
  return (n + to - 1) / to * to;
}

// One head of a (B, T, H, D) view: rows of D elements.
template <class T>
struct Rows {
  T* data;
  int64_t stride;
  T* operator[](int64_t t) const { return data + t * stride; }
};
template <class T>
Rows<T> head_of(const View& x, int64_t b, int64_t h) {
  return {x.as<T>() + b * x.step(0) + h * x.step(2), x.step(1)};
}

// to (n, padded) = factor * rows first ... first + n - 1, columns beyond d zero.
template <class T, class A>
void pack_rows(const Rows<T>& from, int64_t first, int64_t n, int64_t d, int64_t padded, A factor, A* to) {
  constexpr int64_t L = vec::lanes<A>;
  constexpr int64_t kAhead = 6;
  for (int64_t r = 0; r < n; ++r) {
    const auto* row = from[first + r];
    if (r + kAhead < n) vec::prefetch(row + kAhead * from.stride, d);
    A* out = to + r * padded;
    int64_t j = 0;
    for (; j + L <= d; j += L) vec::store(out + j, vec::load(row + j) * factor);
    if (j < d) vec::store(out + j, vec::load_partial(row + j, d - j) * factor), j += L;
    for (; j < padded; j += L) vec::store(out + j, vec::Vec<A>{});
  }
}

// to (d, kQueries) = from^T (n, ld); columns beyond n zero.
template <class A>
void pack_transposed(const A* from, int64_t ld, int64_t n, int64_t d, A* to) {
  constexpr int64_t kSide = 8;  // small squares keep both sides in L1
  for (int64_t i0 = 0; i0 < kQueries; i0 += kSide) {
    for (int64_t j0 = 0; j0 < d; j0 += kSide) {
      const int64_t rows = std::clamp<int64_t>(n - i0, 0, kSide);
      for (int64_t j = j0; j < std::min(j0 + kSide, d); ++j) {
        A* out = to + j * kQueries + i0;
        for (int64_t i = 0; i < rows; ++i) out[i] = from[(i0 + i) * ld + j];
        for (int64_t i = rows; i < kSide; ++i) out[i] = 0;
      }
    }
  }
}

template <class T>
void store_row(T* to, const vec::Accumulator<T>* from, int64_t d, vec::Accumulator<T> factor) {
  constexpr int64_t L = vec::lanes<T>;
  int64_t j = 0;
  for (; j + L <= d; j += L) vec::store(to + j, vec::load(from + j) * factor);
  if (j < d) vec::store_partial(to + j, vec::load_partial(from + j, d - j) * factor, d - j);
}

// The visible keys [low, high] of each query of a tile, and their bounds over blocks of queries.
template <class A>
struct Mask {
  using Int = std::conditional_t<std::is_same_v<A, double>, int64_t, int32_t>;  // as wide as a lane
  std::array<Int, kQueries> low, high;
  struct Bounds {
    int64_t min_low, max_low, min_high, max_high;
  };
  std::array<Bounds, kQueries / kBlock<A>> block;
  int64_t blocks;           // blocks with a query in them
  int64_t first_key, last;  // keys some query sees

  // Queries first ... first + n - 1 of T over S keys; start: document_start of this sequence or nullptr.
  Mask(int64_t first, int64_t n, int64_t queries, int64_t keys, int64_t window, const int32_t* start) {
    blocks = round_up(n, kBlock<A>) / kBlock<A>;
    first_key = keys;
    last = 0;
    for (int64_t i = 0; i < blocks * kBlock<A>; ++i) {
      const int64_t t = first + std::min(i, n - 1), p = keys - queries + t;  // lanes beyond n repeat the last query
      int64_t lowest = window > 0 ? std::max<int64_t>(p - window + 1, 0) : 0;
      if (start) lowest = std::max<int64_t>(lowest, start[t]);
      const size_t at = static_cast<size_t>(i);
      low[at] = static_cast<Int>(lowest);
      high[at] = static_cast<Int>(p);
      Bounds& bounds = block[static_cast<size_t>(i / kBlock<A>)];
      if (i % kBlock<A> == 0) bounds = {lowest, lowest, p, p};
      bounds = {std::min(bounds.min_low, lowest), std::max(bounds.max_low, lowest), std::min(bounds.min_high, p), std::max(bounds.max_high, p)};
      first_key = std::min(first_key, lowest);
      last = std::max(last, p);
    }
  }

  // Rows [begin, end) of the tile of keys [first, first + n) that block q sees; partial: not every query sees all of them.
  struct Range {
    int64_t begin, end;
    bool partial;
    bool empty() const { return begin >= end; }
  };
  Range range(int64_t q, int64_t first, int64_t n) const {
    const Bounds& b = block[static_cast<size_t>(q)];
    const int64_t begin = std::max(first, b.min_low), end = std::min(first + n, b.max_high + 1);
    return {begin - first, end - first, begin < b.max_low || end - 1 > b.min_high};
  }
  // Lanes of vector v of block q that see `key`: all ones or zero.
  auto visible(int64_t q, int64_t v, int64_t key) const {
    using M = std::conditional_t<std::is_same_v<A, double>, vec::I64, vec::I32>;
    M lowest, highest;
    std::memcpy(&lowest, &low[static_cast<size_t>(q * kBlock<A> + v * vec::lanes<A>)], sizeof lowest);
    std::memcpy(&highest, &high[static_cast<size_t>(q * kBlock<A> + v * vec::lanes<A>)], sizeof highest);
    const M k = M{} + static_cast<Int>(key);
    return (M)(lowest <= k) & (M)(k <= highest);
  }
};

}  // namespace heddle::kernels::cpu::attention
