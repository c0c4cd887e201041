// What a matmul call asks of the tensor-core kernels, as one value; and why they may refuse it.
#pragma once

#include <cstdint>

#include "kernels/api/matmul.h"

namespace heddle::kernels::cuda {

// The three products of a linear layer.
enum class MatmulLayout : uint8_t {
  forward,          // a (M, K), b stored (N, K)
  input_gradient,   // a (M, K), b stored (K, N)
  weight_gradient,  // a stored (K, M), b stored (K, N)
};

constexpr MatmulLayout layout_of(bool trans_a, bool trans_b) {
  return trans_a ? MatmulLayout::weight_gradient : trans_b ? MatmulLayout::forward : MatmulLayout::input_gradient;
}

// What the parameters of both tensor-core kernels begin with: operands, sizes, row strides. The rest keeps its defaults.
template <class Params>
Params matmul_operands(const MatmulArgs& args) {
  const MatmulShape shape = shape_of(args);
  Params p{};
  p.a = args.a.as<const bf16>();
  p.b = args.b.as<const bf16>();
  p.m = static_cast<int>(shape.m);
  p.n = static_cast<int>(shape.n);
  p.k = static_cast<int>(shape.k);
  p.lda = args.a.step(0);
  p.ldb = args.b.step(0);
  return p;
}

inline Refusal refuses_long_sides(const MatmulArgs& args) {
  constexpr int64_t kLongest = INT32_MAX / 2;
  const MatmulShape shape = shape_of(args);
  if (shape.m > kLongest || shape.n > kLongest || shape.k > kLongest) return refused("a side longer than 2^30");
  return {};
}

// cp.async and tensor maps ask it of the stride of a single row, too.
inline Refusal refuses_unaligned_rows(const View& v) {
  if (reinterpret_cast<uintptr_t>(v.data) % 16 == 0 && v.step(0) * size_of(v.dtype) % 16 == 0) return {};
  return refused("rows must start at multiples of 16 bytes: ", v, ", row stride ", v.step(0));
}

// Common to the Ampere and Hopper kernels: bf16 operands whose rows start at multiples of 16 bytes.
inline Refusal refuses_tensor_core_matmul(const MatmulArgs& args) {
  if (args.a.dtype != DType::bf16) return refused("bf16 operands only, not ", args.a);
  if (args.c.to.dtype != DType::bf16 && args.c.to.dtype != DType::f32) return refused("bf16 or f32 results only, not ", args.c.to);
  if (args.trans_a && args.trans_b) return refused("not both operands transposed");
  for (const View* view : {&args.a, &args.b}) {
    if (Refusal unaligned = refuses_unaligned_rows(*view)) return unaligned;
  }
  if (shape_of(args).k == 0) return refused("K is 0");
  return refuses_long_sides(args);
}

}  // namespace heddle::kernels::cuda
