// Elementwise kernels: out = f(in...) over strided views of one shape, of one or several outputs.
//
// Bound by memory: every input is read once, every output written once (and read, where it accumulates). A lane takes units of 16 bytes of the widest
// dtype where every view allows it, neighbouring lanes neighbouring units, so that requests fill their sectors; else single elements. Each thread has
// several units in flight, and reads all it needs of them before it writes: an output may lie on an input with the same strides.
//
//   struct Scale {
//     static constexpr int kIn = 1, kOut = 1;
//     float by;
//     template <int W> __device__ void operator()(float (&out)[1][W], const float (&in)[1][W]) const { ... }
//   };
//   launch_map<Scale, bf16, float>({2}, {x, y}, accumulate, stream);    // the types of the inputs, then of the outputs
#pragma once

#include <algorithm>
#include <tuple>
#include <utility>

#include "kernels/arch/ptx.h"
#include "kernels/cuda/map_walk.h"

namespace heddle::kernels::cuda {

// f32 or bf16, as the launch says.
struct AnyFloat {};

namespace thread {

// apply(integral_constant i) for i in [kBegin, kEnd): a loop whose index is known where types and registers depend on it.
template <int kBegin, int kEnd, class Apply>
__device__ __forceinline__ void for_range(const Apply& apply) {
  if constexpr (kBegin < kEnd) {
    apply(std::integral_constant<int, kBegin>{});
    for_range<kBegin + 1, kEnd>(apply);
  }
}

// kWidth elements of one dtype as they lie in memory, in 32-bit registers.
template <class T, int kWidth>
inline constexpr int kUnitBytes = kWidth* static_cast<int>(sizeof(T));

template <class T, int kWidth>
__device__ __forceinline__ void load_unit(const void* from, int64_t at, [[maybe_unused]] bool half, int count, uint32_t (&raw)[kWidth]) {
  if constexpr (std::is_same_v<T, AnyFloat>) {
    static_assert(kWidth == 1);
    if (count > 0) raw[0] = half ? uint32_t{static_cast<const bf16*>(from)[at].bits} : __float_as_uint(static_cast<const float*>(from)[at]);
  } else {
    const T* const p = static_cast<const T*>(from) + at;
    if (count == kWidth) {
      constexpr int kBytes = kUnitBytes<T, kWidth>;
      static_assert(kBytes == 8 || kBytes % 16 == 0);
      if constexpr (kBytes == 8) {
        const uint2 v = ptx::ld64(p);
        raw[0] = v.x;
        raw[1] = v.y;
      } else {
#pragma unroll
        for (int i = 0; i < kBytes / 16; ++i) {
          const uint4 v = ptx::ld128(p + i * 16 / static_cast<int>(sizeof(T)));
          raw[4 * i] = v.x;
          raw[4 * i + 1] = v.y;
          raw[4 * i + 2] = v.z;
          raw[4 * i + 3] = v.w;
        }
      }
    } else {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        if constexpr (std::is_same_v<T, bf16>) {
          const uint32_t bits = e < count ? uint32_t{p[e].bits} : 0;
          raw[e / 2] = e % 2 == 0 ? bits : raw[e / 2] | bits << 16;
        } else {
          raw[e] = e < count ? __float_as_uint(p[e]) : 0;
        }
      }
    }
  }
}

template <class T, int kWidth>
__device__ __forceinline__ void unpack_unit(const uint32_t (&raw)[kWidth], [[maybe_unused]] bool half, float (&values)[kWidth]) {
#pragma unroll
  for (int e = 0; e < kWidth; ++e) {
    if constexpr (std::is_same_v<T, AnyFloat>) {
      values[e] = __uint_as_float(half ? raw[e] << 16 : raw[e]);
    } else if constexpr (std::is_same_v<T, bf16>) {
      values[e] = __uint_as_float(e % 2 == 0 ? raw[e / 2] << 16 : raw[e / 2] & 0xFFFF0000u);
    } else {
      values[e] = __uint_as_float(raw[e]);
    }
  }
}

template <class T, int kWidth>
__device__ __forceinline__ void store_unit(void* to, int64_t at, [[maybe_unused]] bool half, int count, const float (&values)[kWidth]) {
  if constexpr (std::is_same_v<T, AnyFloat>) {
    if (half) {
      static_cast<bf16*>(to)[at] = from_float<bf16>(values[0]);
    } else {
      static_cast<float*>(to)[at] = values[0];
    }
  } else {
    T* const p = static_cast<T*>(to) + at;
    if (count == kWidth) {
      uint32_t raw[kWidth];
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        if constexpr (std::is_same_v<T, bf16>) {
          if (e % 2 == 0) raw[e / 2] = ptx::cvt_bf16x2(values[e], values[e + 1]);
        } else {
          raw[e] = __float_as_uint(values[e]);
        }
      }
      if constexpr (kUnitBytes<T, kWidth> == 8) {
        ptx::st64(p, make_uint2(raw[0], raw[1]));
      } else {
#pragma unroll
        for (int i = 0; i < kUnitBytes<T, kWidth> / 16; ++i) {
          ptx::st128(p + i * 16 / static_cast<int>(sizeof(T)), make_uint4(raw[4 * i], raw[4 * i + 1], raw[4 * i + 2], raw[4 * i + 3]));
        }
      }
    } else {
#pragma unroll
      for (int e = 0; e < kWidth; ++e) {
        if (e < count) p[e] = from_float<T>(values[e]);
      }
    }
  }
}

}  // namespace thread

inline constexpr int kMapThreads = 256;

template <class F, int K>
struct MapParams {
  F f;
  MapWalk<K> walk;
  std::byte* data[K];
  bool half[K];     // bf16, where the type is AnyFloat
  bool accumulate;  // outputs += instead of =
};

// Units a thread has in flight: few where there are many views, whose units are in flight together.
constexpr int map_pieces(int width, int views) {
  return views > 3 ? 1 : width == 1 ? 4 : 2;
}

template <class F, int kWidth, class... Types>
__global__ void __launch_bounds__(kMapThreads) map_kernel(const MapParams<F, static_cast<int>(sizeof...(Types))> p) {
  constexpr int kViews = static_cast<int>(sizeof...(Types)), kPieces = map_pieces(kWidth, kViews);
  static_assert(F::kIn + F::kOut == kViews);
  using Type = std::tuple<Types...>;
  int64_t at[kPieces][kViews];
  int count[kPieces];
  uint32_t raw[kPieces][kViews][kWidth] = {};
  thread::for_range<0, kPieces>([&](auto i) {
    const int64_t unit = (static_cast<int64_t>(blockIdx.x) * kPieces + i) * kMapThreads + threadIdx.x;
    count[i] = p.walk.locate(unit, kWidth, at[i]);
    if (count[i] == 0) return;
    const auto load = [&](auto k) { thread::load_unit<std::tuple_element_t<k, Type>, kWidth>(p.data[k], at[i][k], p.half[k], count[i], raw[i][k]); };
    thread::for_range<0, F::kIn>(load);
    if (p.accumulate) thread::for_range<F::kIn, kViews>(load);
  });
  thread::for_range<0, kPieces>([&](auto i) {
    if (count[i] == 0) return;
    float in[F::kIn][kWidth], out[F::kOut][kWidth] = {};
    thread::for_range<0, F::kIn>([&](auto k) { thread::unpack_unit<std::tuple_element_t<k, Type>, kWidth>(raw[i][k], p.half[k], in[k]); });
    p.f(out, in);
    thread::for_range<F::kIn, kViews>([&](auto k) {
      using T = std::tuple_element_t<k, Type>;
      float(&values)[kWidth] = out[k - F::kIn];
      if (p.accumulate) {
        float before[kWidth];
        thread::unpack_unit<T, kWidth>(raw[i][k], p.half[k], before);
#pragma unroll
        for (int e = 0; e < kWidth; ++e) values[e] += before[e];
      }
      thread::store_unit<T, kWidth>(p.data[k], at[i][k], p.half[k], count[i], values);
    });
  });
}

template <class F, int kWidth, class... Types, int K = static_cast<int>(sizeof...(Types))>
void launch_map_of_width(const F& f, const MapAxes<K>& axes, const Views<K>& views, bool accumulate, Stream stream) {
  MapParams<F, K> p{f, MapWalk<K>(axes, kWidth), {}, {}, accumulate};
  for (size_t k = 0; k < views.size(); ++k) {
    p.data[k] = views[k].data;
    p.half[k] = views[k].dtype == DType::bf16;
  }
  constexpr int64_t kOfBlock = int64_t{kMapThreads} * map_pieces(kWidth, K);
  HEDDLE_LAUNCH((map_kernel<F, kWidth, Types...>), static_cast<unsigned>((p.walk.units + kOfBlock - 1) / kOfBlock), kMapThreads, 0, stream, p);
}

// Any dtypes, any strides.
template <class F, int K = F::kIn + F::kOut>
void launch_map_of_elements(const F& f, const MapAxes<K>& axes, const Views<K>& views, bool accumulate, Stream stream) {
  [&]<size_t... k>(std::index_sequence<k...>) {
    launch_map_of_width<F, 1, std::conditional_t<k + 1 == 0, void, AnyFloat>...>(f, axes, views, accumulate, stream);
  }
  (std::make_index_sequence<static_cast<size_t>(K)>{});
}

// Views of the dtypes Types: inputs in F's order, then outputs. 16 bytes of the widest dtype are a unit, or of the first where kOfFirst: for inputs
// that stay in the cache.
template <class F, bool kOfFirst, class First, class... Rest, int K = 1 + static_cast<int>(sizeof...(Rest))>
void launch_map_by(const F& f, const Views<K>& views, bool accumulate, Stream stream) {
  constexpr int kWidth = 16 / static_cast<int>(kOfFirst ? sizeof(First) : std::max({sizeof(First), sizeof(Rest)...}));
  if (views[0].numel() == 0) return;
  const MapAxes<K> axes = map_axes<K>(views);
  bool whole = true;
  for (int k = 0; k < K; ++k) whole = whole && moves_whole(axes, k, views[static_cast<size_t>(k)], kWidth);
  if (whole) {
    launch_map_of_width<F, kWidth, First, Rest...>(f, axes, views, accumulate, stream);
  } else {
    launch_map_of_elements(f, axes, views, accumulate, stream);
  }
}
template <class F, class... Types>
void launch_map(const F& f, const Views<static_cast<int>(sizeof...(Types))>& views, bool accumulate, Stream stream) {
  launch_map_by<F, false, Types...>(f, views, accumulate, stream);
}

// body(T{}) with T the dtype: float or bf16.
template <class Body>
void with_float(DType dtype, const Body& body) {
  dtype == DType::bf16 ? body(bf16{}) : body(float{});
}

}  // namespace heddle::kernels::cuda
