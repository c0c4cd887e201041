// The innermost product of matmul and attention: a few rows of c times two vectors of columns, held in registers over the whole depth
// (Goto and van de Geijn 2008). b is read as vectors, a as broadcasts, so a may lie in either orientation and needs no interleaving.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "kernels/cpu/vec_internal.h"

namespace heddle::kernels::cpu {

template <class A>
inline constexpr int64_t kMicroColumns = 2 * vec::lanes<A>;
// Rows x 2 sums, two vectors of b and one broadcast fill the registers: 16 of AVX2 and SSE, 32 of AVX-512.
inline constexpr int kMicroRows = vec::kBytes == 64 ? 12 : 6;

// A stretch of memory a later product reads: its lines are asked for while this one multiplies, which hides that L2 does not hold them yet.
struct Ahead {
  const std::byte* from = nullptr;
  int64_t lines = 0;
  HEDDLE_INLINE void fetch() const {
    for (int64_t i = 0; i < lines; ++i) __builtin_prefetch(from + i * 64, 0, 2);
  }
};

// c (R, 2 vectors) (+)= a (R, k) b (k, 2 vectors). kColumns: a(i, p) is a[p * lda + i], else a[i * lda + p].
template <bool kColumns, int R, class A>
HEDDLE_INLINE void micro_product(int64_t k, const A* a, int64_t lda, const A* b, int64_t ldb, A* c, int64_t ldc, bool add, Ahead ahead = {}) {
  using V = vec::Vec<A>;
  constexpr int L = vec::lanes<A>;
  V sum[R][2];
  ahead.fetch();
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) __builtin_prefetch(c + (R + i) * ldc, 1);  // the rows of c that come next
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    sum[i][0] = add ? vec::load(c + i * ldc) : V{};
    sum[i][1] = add ? vec::load(c + i * ldc + L) : V{};
  }
  for (int64_t p = 0; p < k; ++p) {
    const V b0 = vec::load(b + p * ldb), b1 = vec::load(b + p * ldb + L);
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i) {
      const V x = vec::broadcast(kColumns ? a[p * lda + i] : a[i * lda + p]);
      sum[i][0] = vec::fma(x, b0, sum[i][0]);
      sum[i][1] = vec::fma(x, b1, sum[i][1]);
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
    vec::store(c + i * ldc, sum[i][0]);
    vec::store(c + i * ldc + L, sum[i][1]);
  }
}

// The last rows of a panel: fewer than kMicroRows.
template <bool kColumns, int R, class A>
HEDDLE_INLINE void micro_rest(int64_t m, int64_t k, const A* a, int64_t lda, const A* b, int64_t ldb, A* c, int64_t ldc, bool add) {
  if constexpr (R > 0) {
    if (m == R) {
      micro_product<kColumns, R>(k, a, lda, b, ldb, c, ldc, add);
    } else {
      micro_rest<kColumns, R - 1>(m, k, a, lda, b, ldb, c, ldc, add);
    }
  }
}

// How a (m, k) lies: by rows, a(i, p) at a[i * lda + p]; by columns, at a[p * lda + i]; or in strips of kMicroRows rows one after the other, each
// dense and by columns, so that the product reads one stream: a(i, p) at a[(i / kMicroRows * lda + p) * kMicroRows + i % kMicroRows].
enum class Order { rows, columns, strips };

// c (m, kMicroColumns) (+)= a (m, k) b (k, kMicroColumns). next_b: the dense panel (k, kMicroColumns) the caller multiplies next, or nullptr.
template <Order kOrder, class A>
void panel_product(int64_t m, int64_t k, const A* a, int64_t lda, const A* b, int64_t ldb, A* c, int64_t ldc, bool add, const A* next_b = nullptr) {
  constexpr bool kColumns = kOrder != Order::rows;
  const auto from = [&](int64_t i) { return a + (kOrder == Order::columns ? i : i * lda); };  // i is a multiple of kMicroRows
  const int64_t step = kOrder == Order::strips ? kMicroRows : lda;
  const int64_t products = std::max<int64_t>(m / kMicroRows, 1);
  const int64_t lines = next_b ? (k * kMicroColumns<A> * int64_t{sizeof(A)} / 64 + products - 1) / products : 0;
  Ahead ahead = {reinterpret_cast<const std::byte*>(next_b), lines};
  int64_t i = 0;
  for (; i + kMicroRows <= m; i += kMicroRows, ahead.from += lines * 64) {
    micro_product<kColumns, kMicroRows>(k, from(i), step, b, ldb, c + i * ldc, ldc, add, ahead);
  }
  micro_rest<kColumns, kMicroRows - 1>(m - i, k, from(i), step, b, ldb, c + i * ldc, ldc, add);
}

// c (m, n) (+)= a (m, k) b (k, n); n a multiple of kMicroColumns<A>.
template <bool kColumns, class A>
void product(int64_t m, int64_t n, int64_t k, const A* a, int64_t lda, const A* b, int64_t ldb, A* c, int64_t ldc, bool add) {
  for (int64_t j = 0; j < n; j += kMicroColumns<A>) {
    panel_product<kColumns ? Order::columns : Order::rows>(m, k, a, lda, b + j, ldb, c + j, ldc, add);
  }
}

}  // namespace heddle::kernels::cpu
