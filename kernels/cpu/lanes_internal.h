// Loops over contiguous memory in vectors: `f` is written once, for vec::Vec<T>, and serves whole vectors and the ragged end alike.
// Sums keep a fixed number of lanes and combine them in a fixed tree, so their order depends on n alone.
#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "kernels/cpu/vec_internal.h"

// A lambda over lanes that must become part of the loop around it.
#define HEDDLE_LANEWISE __attribute__((always_inline))

namespace heddle::kernels::cpu {

// out[k][i] = f(in[i]...)[k] for i < n. Outputs may be inputs: each vector is read before it is written.
template <class T, size_t K, class F, class... In>
HEDDLE_INLINE void map_lanes(int64_t n, const std::array<T*, K>& out, const F& f, const In*... in) {
  constexpr int64_t L = vec::lanes<T>;
  int64_t i = 0;
  for (; i + L <= n; i += L) {
    const auto y = f(vec::load(in + i)...);
    for (size_t k = 0; k < K; ++k) vec::store(out[k] + i, y[k]);
  }
  if (i < n) {
    const auto y = f(vec::load_partial(in + i, n - i)...);
    for (size_t k = 0; k < K; ++k) vec::store_partial(out[k] + i, y[k], n - i);
  }
}
template <class T, class F, class... In>
HEDDLE_INLINE void map_lanes(int64_t n, T* out, const F& f, const In*... in) {
  constexpr int64_t L = vec::lanes<T>;
  int64_t i = 0;
  for (; i + L <= n; i += L) vec::store(out + i, f(vec::load(in + i)...));
  if (i < n) vec::store_partial(out + i, f(vec::load_partial(in + i, n - i)...), n - i);
}

// The first n lanes of v, `other` in the rest.
template <class T>
HEDDLE_INLINE vec::Vec<T> keep_lanes(vec::Vec<T> v, int64_t n, T other) {
  T lane[vec::lanes<T>];
  vec::store(lane, v);
  for (int64_t i = n; i < vec::lanes<T>; ++i) lane[i] = other;
  return vec::load(lane);
}

// sum over i < n of f(in[i]...)[k], for K sums at once.
template <size_t K, class T, class F, class... In>
HEDDLE_INLINE std::array<T, K> sum_lanes(int64_t n, const F& f, const T* first, const In*... rest) {
  using V = vec::Vec<T>;
  constexpr int64_t L = vec::lanes<T>;
  constexpr int kUnroll = 4;  // independent chains: an addition takes four cycles
  V sum[kUnroll][K] = {};
  int64_t i = 0;
  for (; i + kUnroll * L <= n; i += kUnroll * L) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnroll; ++u) {
      const auto term = f(vec::load(first + i + u * L), vec::load(rest + i + u * L)...);
      for (size_t k = 0; k < K; ++k) sum[u][k] += term[k];
    }
  }
  for (; i + L <= n; i += L) {
    const auto term = f(vec::load(first + i), vec::load(rest + i)...);
    for (size_t k = 0; k < K; ++k) sum[0][k] += term[k];
  }
  if (i < n) {
    const auto term = f(vec::load_partial(first + i, n - i), vec::load_partial(rest + i, n - i)...);
    for (size_t k = 0; k < K; ++k) sum[1][k] += keep_lanes<T>(term[k], n - i, T{0});
  }
  std::array<T, K> total;
  for (size_t k = 0; k < K; ++k) total[k] = vec::reduce_add((sum[0][k] + sum[1][k]) + (sum[2][k] + sum[3][k]));
  return total;
}

// max over i < n of f(x[i]); -Inf when n is 0. NaN may be lost: it comes back through the sums that follow.
template <class T, class F>
HEDDLE_INLINE T max_lanes(int64_t n, const F& f, const T* x) {
  using V = vec::Vec<T>;
  constexpr int64_t L = vec::lanes<T>;
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  V m0 = vec::broadcast(kLowest), m1 = m0;
  int64_t i = 0;
  for (; i + 2 * L <= n; i += 2 * L) {
    m0 = vec::max(m0, f(vec::load(x + i)));
    m1 = vec::max(m1, f(vec::load(x + i + L)));
  }
  for (; i + L <= n; i += L) m0 = vec::max(m0, f(vec::load(x + i)));
  if (i < n) m1 = vec::max(m1, keep_lanes<T>(f(vec::load_partial(x + i, n - i)), n - i, kLowest));
  return vec::reduce_max(vec::max(m0, m1));
}

}  // namespace heddle::kernels::cpu
