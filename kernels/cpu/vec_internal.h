// SIMD vocabulary of the CPU kernels, written with the compiler's vector extensions: the same source is AVX-512, AVX2, SSE or NEON code.
//
//   using V = Vec<T>;                     // T = float, bf16: F32 lanes; double: F64 lanes
//   for (i = 0; i + lanes<T> <= n; i += lanes<T>) store(y + i, exp(load(x + i)));
//   if (i < n) store_partial(y + i, exp(load_partial(x + i, n - i)), n - i);      // absent lanes load 0
//
// Loads and stores need no alignment; bf16 is widened on load and rounded to nearest even on store. + - * / and comparisons are the
// compiler's, lane by lane; a comparison gives an integer mask for select(). Reductions combine lanes in a fixed tree.
//
// Accuracy in f32 (against f64, the tests measure it): exp 2 ulp with denormals, Inf and NaN as std::exp; sigmoid 3 ulp;
// tanh 2 ulp; log 2 ulp; gelu 4e-7 |x|. f64 goes through <cmath>.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels/api/types.h"
#include "kernels/cpu/intrinsics_internal.h"

#define HEDDLE_INLINE inline __attribute__((always_inline))

namespace heddle::kernels::vec {

#if defined(__AVX512F__)
inline constexpr int kBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kBytes = 32;
#else
inline constexpr int kBytes = 16;
#endif

typedef float F32 __attribute__((vector_size(kBytes)));
typedef double F64 __attribute__((vector_size(kBytes)));
typedef int32_t I32 __attribute__((vector_size(kBytes)));
typedef uint32_t U32 __attribute__((vector_size(kBytes)));
typedef int64_t I64 __attribute__((vector_size(kBytes)));
typedef uint16_t U16 __attribute__((vector_size(kBytes / 2)));

// The type arithmetic on T is done in.
template <class T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;
template <class T>
using Vec = std::conditional_t<std::is_same_v<T, double>, F64, F32>;
template <class T>
inline constexpr int lanes = kBytes / static_cast<int>(sizeof(Accumulator<T>));

HEDDLE_INLINE F32 load(const float* p) {
  F32 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
HEDDLE_INLINE F64 load(const double* p) {
  F64 v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
HEDDLE_INLINE F32 load(const bf16* p) {
  U16 half;
  std::memcpy(&half, p, sizeof half);
  return (F32)(__builtin_convertvector(half, U32) << 16);
}
HEDDLE_INLINE void store(float* p, F32 v) {
  std::memcpy(p, &v, sizeof v);
}
HEDDLE_INLINE void store(double* p, F64 v) {
  std::memcpy(p, &v, sizeof v);
}

// x - 0 and not 0 + x: the compiler may drop it (-0 stays -0), and a broadcast from memory is one instruction.
HEDDLE_INLINE F32 broadcast(float x) {
  return x - F32{};
}
HEDDLE_INLINE F64 broadcast(double x) {
  return x - F64{};
}

HEDDLE_INLINE F32 select(I32 mask, F32 yes, F32 no) {
  return (F32)((mask & (I32)yes) | (~mask & (I32)no));
}
HEDDLE_INLINE F64 select(I64 mask, F64 yes, F64 no) {
  return (F64)((mask & (I64)yes) | (~mask & (I64)no));
}

HEDDLE_INLINE void store(bf16* p, F32 v) {
  const U32 u = (U32)v;
  const U32 rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  const U32 quiet = (u >> 16) | 0x40u;
  const U32 is_nan = (U32)(v != v);
  const U16 half = __builtin_convertvector((is_nan & quiet) | (~is_nan & rounded), U16);
  std::memcpy(static_cast<void*>(p), &half, sizeof half);
}

// Transposes the square whose rows are `row` by swapping the off-diagonal quarters of ever larger blocks.
template <int kHalf, class V, size_t... kLane>
HEDDLE_INLINE void swap_quarters(V& a, V& b, std::index_sequence<kLane...>) {
  constexpr int n = static_cast<int>(sizeof...(kLane));
  const V low = __builtin_shufflevector(a, b, (kLane & kHalf ? n + static_cast<int>(kLane) - kHalf : static_cast<int>(kLane))...);
  b = __builtin_shufflevector(a, b, (kLane & kHalf ? n + static_cast<int>(kLane) : static_cast<int>(kLane) + kHalf)...);
  a = low;
}
template <int kHalf = 1, int n>
HEDDLE_INLINE void transpose(F32 (&row)[n]) {
  static_assert(n == lanes<float>);
  if constexpr (kHalf < n) {
#pragma GCC unroll 16
    for (int i = 0; i < n; ++i) {
      if (!(i & kHalf)) swap_quarters<kHalf>(row[i], row[i + kHalf], std::make_index_sequence<n>{});
    }
    transpose<2 * kHalf>(row);
  }
}

// Asks for the `elements` from p on: for the next rows of a block whose stride is too long for the hardware to foresee.
template <class T>
HEDDLE_INLINE void prefetch(const T* p, int64_t elements) {
  constexpr int64_t kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t i = 0; i < elements; i += kLine) __builtin_prefetch(p + i);
}

// The first n lanes (0 <= n <= lanes); the others are 0 and their memory is not read.
template <class T>
HEDDLE_INLINE Vec<T> load_partial(const T* p, int64_t n) {
  T lane[lanes<T>] = {};
  std::memcpy(static_cast<void*>(lane), p, static_cast<size_t>(n) * sizeof(T));
  return load(lane);
}
template <class T>
HEDDLE_INLINE void store_partial(T* p, Vec<T> v, int64_t n) {
  T lane[lanes<T>];
  store(lane, v);
  std::memcpy(static_cast<void*>(p), lane, static_cast<size_t>(n) * sizeof(T));
}

// a * b + c in one rounding where the machine has it.
HEDDLE_INLINE F32 fma(F32 a, F32 b, F32 c) {
#if defined(__AVX512F__)
  return (F32)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__) && defined(__AVX2__)
  return (F32)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
HEDDLE_INLINE F64 fma(F64 a, F64 b, F64 c) {
#if defined(__AVX512F__)
  return (F64)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__) && defined(__AVX2__)
  return (F64)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

// The larger (smaller) lane; a NaN in b is lost, one in a is kept: keep the accumulator in a.
HEDDLE_INLINE F32 max(F32 a, F32 b) {
  return select(b > a, b, a);
}
HEDDLE_INLINE F64 max(F64 a, F64 b) {
  return select(b > a, b, a);
}
HEDDLE_INLINE F32 min(F32 a, F32 b) {
  return select(b < a, b, a);
}
HEDDLE_INLINE F64 min(F64 a, F64 b) {
  return select(b < a, b, a);
}
HEDDLE_INLINE F32 abs(F32 a) {
  return (F32)((I32)a & 0x7fffffff);
}
HEDDLE_INLINE F64 abs(F64 a) {
  return (F64)((I64)a & 0x7fffffffffffffffLL);
}

template <class V>
HEDDLE_INLINE auto reduce_add(V v) {
  constexpr int n = sizeof(V) / sizeof(v[0]);
  std::remove_reference_t<decltype(v[0])> lane[n];
  std::memcpy(lane, &v, sizeof v);
  for (int half = n / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] += lane[i + half];
  }
  return lane[0];
}
template <class V>
HEDDLE_INLINE auto reduce_max(V v) {
  constexpr int n = sizeof(V) / sizeof(v[0]);
  std::remove_reference_t<decltype(v[0])> lane[n];
  std::memcpy(lane, &v, sizeof v);
  for (int half = n / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; ++i) lane[i] = lane[i + half] > lane[i] ? lane[i + half] : lane[i];
  }
  return lane[0];
}

// e^x: x = n ln 2 + r with |r| <= ln 2 / 2 (Cody and Waite 1980), a degree-6 polynomial in r, then 2^n in two factors so that
// denormal results come out right.
HEDDLE_INLINE F32 exp(F32 x) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  F32 t = max(min(x, broadcast(89.0f)), broadcast(-105.0f));
  const F32 shifted = fma(t, broadcast(1.44269504088896341f), broadcast(kMagic));
  const F32 n = shifted - kMagic;
  F32 r = fma(n, broadcast(-0.693359375f), t);
  r = fma(n, broadcast(2.12194440e-4f), r);
  F32 p = fma(broadcast(1.9875691500e-4f), r, broadcast(1.3981999507e-3f));
  p = fma(p, r, broadcast(8.3334519073e-3f));
  p = fma(p, r, broadcast(4.1665795894e-2f));
  p = fma(p, r, broadcast(1.6666665459e-1f));
  p = fma(p, r, broadcast(5.0000001201e-1f));
  p = fma(p, r * r, r) + 1.0f;
  const I32 i = (I32)shifted - std::bit_cast<int32_t>(kMagic);
  const I32 half = i >> 1;
  return p * (F32)((half + 127) << 23) * (F32)((i - half + 127) << 23);
}
HEDDLE_INLINE F64 exp(F64 x) {
  F64 y{};
  for (int i = 0; i < lanes<double>; ++i) y[i] = std::exp(x[i]);
  return y;
}

// 1 / (1 + e^-x)
template <class V>
HEDDLE_INLINE V sigmoid(V x) {
  return 1 / (1 + exp(-x));
}

// Odd polynomial near 0, where 1 - 2 / (e^2|x| + 1) would cancel (Cephes tanhf).
HEDDLE_INLINE F32 tanh(F32 x) {
  const F32 a = abs(x), z = x * x;
  F32 p = fma(broadcast(-5.70498872745e-3f), z, broadcast(2.06390887954e-2f));
  p = fma(p, z, broadcast(-5.37397155531e-2f));
  p = fma(p, z, broadcast(1.33314422036e-1f));
  p = fma(p, z, broadcast(-3.33332819422e-1f));
  const F32 near = fma(p * z, x, x);
  const F32 far = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  const F32 signed_far = (F32)((I32)far | ((I32)x & std::bit_cast<int32_t>(0x80000000u)));
  return select(a < 0.625f, near, select(x == x, signed_far, x));
}
HEDDLE_INLINE F64 tanh(F64 x) {
  F64 y;
  for (int i = 0; i < lanes<double>; ++i) y[i] = std::tanh(x[i]);
  return y;
}

// 1 - tanh(x)^2, which would cancel, as 4 e / (1 + e)^2 with e = e^-2|x|.
template <class V>
HEDDLE_INLINE V tanh_derivative(V x) {
  const V a = abs(x), e = exp(-(a + a)), s = 1 / (1 + e);
  return 4 * e * s * s;
}
template <class V>
HEDDLE_INLINE V sigmoid_derivative(V x) {
  const V e = exp(-abs(x)), s = 1 / (1 + e);
  return e * s * s;
}

// ln x: x = 2^n m with m in [sqrt(1/2), sqrt(2)), a polynomial in m - 1 (Cephes logf), n ln 2 in two parts.
HEDDLE_INLINE F32 log(F32 x) {
  const I32 tiny = x < 1.17549435e-38f;                   // denormals, and what has no logarithm
  const U32 bits = (U32)select(tiny, x * 8388608.0f, x);  // unsigned: what has no logarithm may wrap
  constexpr uint32_t kRootHalf = 0x3f3504f3;
  const I32 n = (I32)(bits - kRootHalf) >> 23;
  const F32 m = (F32)(bits - ((U32)n << 23)) - 1.0f;
  const F32 e = __builtin_convertvector(n - (tiny & 23), F32), z = m * m;
  F32 p = fma(broadcast(7.0376836292e-2f), m, broadcast(-1.1514610310e-1f));
  p = fma(p, m, broadcast(1.1676998740e-1f));
  p = fma(p, m, broadcast(-1.2420140846e-1f));
  p = fma(p, m, broadcast(1.4249322787e-1f));
  p = fma(p, m, broadcast(-1.6668057665e-1f));
  p = fma(p, m, broadcast(2.0000714765e-1f));
  p = fma(p, m, broadcast(-2.4999993993e-1f));
  p = fma(p, m, broadcast(3.3333331174e-1f));
  p = fma(e, broadcast(-2.12194440e-4f), p * m * z);
  const F32 y = fma(e, broadcast(0.693359375f), m + fma(z, broadcast(-0.5f), p));
  constexpr float inf = __builtin_inff();
  const F32 special = select(x == 0, broadcast(-inf), x + broadcast(__builtin_nanf("")));  // of 0; of less, and of NaN
  return select((x > 0) & (x < inf), y, select(x == inf, x, special));
}
HEDDLE_INLINE F64 log(F64 x) {
  F64 y;
  for (int i = 0; i < lanes<double>; ++i) y[i] = std::log(x[i]);
  return y;
}

// The tanh form of gelu, as x * sigmoid(2u) with u = sqrt(2 / pi) (x + 0.044715 x^3): 1 + tanh(u) == 2 sigmoid(2u), and the
// product keeps its relative accuracy where 1 + tanh(u) cancels.
inline constexpr double kGeluScale = 1.5957691216057308;  // 2 sqrt(2 / pi)
inline constexpr double kGeluCubic = 0.044715;

template <class V>
HEDDLE_INLINE V gelu(V x) {
  using A = std::remove_cvref_t<decltype(x[0])>;
  const V u2 = static_cast<A>(kGeluScale) * x * (1 + static_cast<A>(kGeluCubic) * x * x);
  return x / (1 + exp(-u2));
}
// d gelu / dx = s + x s (1 - s) (2u)', with 1 - s as s e^-2u: a difference would lose what x (2u)' magnifies. Beyond the clamp it is 1 or 0
// to the last bit, and e^-2u does not overflow within.
template <class V>
HEDDLE_INLINE V gelu_derivative(V x) {
  using A = std::remove_cvref_t<decltype(x[0])>;
  constexpr A kClamp = sizeof(A) == 4 ? A(9.5) : A(20);
  x = max(min(x, broadcast(kClamp)), broadcast(-kClamp));
  const V xx = x * x;
  const V e = exp(static_cast<A>(-kGeluScale) * x * (1 + static_cast<A>(kGeluCubic) * xx));
  const V s = 1 / (1 + e);
  const V slope = static_cast<A>(kGeluScale) * (1 + static_cast<A>(3 * kGeluCubic) * xx);
  return s + x * slope * s * (e * s);
}
// max(x, 0)^2; NaN stays.
template <class V>
HEDDLE_INLINE V relu2(V x) {
  const V p = select(x < 0, V{}, x);
  return p * p;
}
template <class V>
HEDDLE_INLINE V relu2_derivative(V x) {
  const V p = select(x < 0, V{}, x);
  return p + p;
}

}  // namespace heddle::kernels::vec
