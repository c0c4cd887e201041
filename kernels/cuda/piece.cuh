// A few consecutive elements that a lane moves at once: 16 or 8 bytes where they are aligned to it, or one element.
#pragma once

#include "kernels/cuda/vec.cuh"

namespace heddle::kernels::cuda {

template <class T, int kElements>
struct Piece {
  static constexpr int kBytes = kElements * static_cast<int>(sizeof(T));
  static_assert(kElements == 1 || kBytes == 16 || kBytes == 8);
  using Packed = std::conditional_t<kElements == 1, T, std::conditional_t<kBytes == 16, uint4, uint2>>;  // as it is loaded

  __device__ static __forceinline__ Packed load(const T* from) {
    if constexpr (kElements > 1 && kBytes == 16) {
      return ptx::ld128(from);
    } else {
      return *reinterpret_cast<const Packed*>(from);
    }
  }
  __device__ static __forceinline__ void unpack(const Packed& packed, float (&out)[kElements]) {
    if constexpr (kElements == 1) {
      out[0] = to_float(packed);
    } else if constexpr (std::is_same_v<T, float>) {
      out[0] = __uint_as_float(packed.x), out[1] = __uint_as_float(packed.y), out[2] = __uint_as_float(packed.z), out[3] = __uint_as_float(packed.w);
    } else if constexpr (kElements == 8) {
      thread::unpack(packed, out);
    } else {
      out[0] = thread::low_half(packed.x), out[1] = thread::high_half(packed.x);
      out[2] = thread::low_half(packed.y), out[3] = thread::high_half(packed.y);
    }
  }
  __device__ static __forceinline__ void load(const T* from, float (&out)[kElements]) { unpack(load(from), out); }
  // Rounded to T.
  __device__ static __forceinline__ void store(T* to, const float (&in)[kElements]) {
    if constexpr (kElements == 1) {
      *to = from_float<T>(in[0]);
    } else if constexpr (std::is_same_v<T, float>) {
      ptx::st128(to, make_uint4(__float_as_uint(in[0]), __float_as_uint(in[1]), __float_as_uint(in[2]), __float_as_uint(in[3])));
    } else if constexpr (kElements == 8) {
      ptx::st128(to, thread::pack(in));
    } else {
      *reinterpret_cast<uint2*>(to) = make_uint2(ptx::cvt_bf16x2(in[0], in[1]), ptx::cvt_bf16x2(in[2], in[3]));
    }
  }
};

}  // namespace heddle::kernels::cuda
