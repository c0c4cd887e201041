// Matrix product with the epilogues a transformer needs.
//
//   z = op(a) op(b) + bias                         op(a) (M, K), op(b) (K, N): trans_a stores a as (K, M), trans_b stores b as (N, K)
//   none             c (+)= z
//   gelu, relu2      c (+)= f(z)                   preact <- z when given
//   gelu_backward,   c (+)= z * f'(preact)         preact is read
//   relu2_backward
//   column_sum (N)   (+)= sum over rows of what this call computed for c (before c's own accumulation)
//
// gelu is the tanh form (Hendrycks and Gimpel 2016); relu2(z) = max(z, 0)^2 (So et al. 2021, "Primer").
// dtypes: a and b the same (f32, bf16 or f64); c that dtype or its accumulator type; bias, preact a's dtype; column_sum either.
// Accumulation is in f32 (f64 for f64). Row strides are free, last strides 1. c aliases nothing it reads.
// M, N or K may be 0 (K = 0: z = bias). Where b is a itself and one of them is transposed (is_gram), op(a) op(b) is symmetric: a candidate may work
// out a half of it and copy the other. Deterministic: the result does not depend on the number of threads.
#pragma once

#include <cstddef>
#include <span>

#include "kernels/api/kernel.h"
#include "kernels/api/types.h"

namespace heddle::kernels {

enum class Epilogue : uint8_t { none, gelu, gelu_backward, relu2, relu2_backward };

constexpr bool is_backward(Epilogue e) {
  return e == Epilogue::gelu_backward || e == Epilogue::relu2_backward;
}

struct MatmulArgs {
  View a, b;
  bool trans_a = false, trans_b = false;
  Sink c;       // (M, N)
  View bias;    // (N)
  View preact;  // (M, N)
  Epilogue epilogue = Epilogue::none;
  Sink column_sum;  // (N)
  std::span<std::byte> scratch;
};

extern Kernel<MatmulArgs> matmul;

// Throws Error naming the shapes when the arguments contradict the contract above.
void check(const MatmulArgs&);

struct MatmulShape {
  int64_t m, n, k;
};
inline MatmulShape shape_of(const MatmulArgs& args) {
  return {args.trans_a ? args.a.size(1) : args.a.size(0), args.trans_b ? args.b.size(0) : args.b.size(1),
          args.trans_a ? args.a.size(0) : args.a.size(1)};
}

// a a^T or a^T a.
inline bool is_gram(const MatmulArgs& args) {
  const View &a = args.a, &b = args.b;
  return args.trans_a != args.trans_b && a.data == b.data && a.size(0) == b.size(0) && a.size(1) == b.size(1) &&
         (a.size(0) <= 1 || a.step(0) == b.step(0));
}

}  // namespace heddle::kernels
