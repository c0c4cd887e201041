// Division by the Frobenius norm: see kernels/api/optimizer.h.
//
// Two launches, bound by memory: the squares are summed in f64 into at most kNormalizeMostBlocks partial sums; then every block adds those up, in the
// same order, and scales its elements. x is read twice and out written: 6 bytes an element in bf16; a matrix that stays in L2 costs 4. Which elements
// a thread adds, and the order of all additions, follow from the length alone.
#pragma once

#include "kernels/api/optimizer.h"
#include "kernels/cuda/flat.cuh"
#include "kernels/cuda/reduce.cuh"

namespace heddle::kernels::cuda {

inline constexpr int kNormalizeMostBlocks = 512;

constexpr int normalize_partials(int64_t n) {
  const int64_t blocks = flat_blocks(n);
  return static_cast<int>(blocks < kNormalizeMostBlocks ? blocks : kNormalizeMostBlocks);
}

struct NormalizeParams {
  int64_t n;
  double* partial;  // (partials)
  int partials;
  float eps;
};

template <class T>
__global__ void __launch_bounds__(kFlatThreads) sum_of_squares_kernel(const T* x, bool wide, const NormalizeParams p) {
  HEDDLE_SHARED(double, partial, [kFlatThreads / 32]);
  double sums[4] = {};
  const int64_t step = static_cast<int64_t>(gridDim.x) * (kFlatThreads / 32), tiles = flat_tiles(p.n);
#pragma unroll 4
  for (int64_t tile = static_cast<int64_t>(blockIdx.x) * (kFlatThreads / 32) + threadIdx.x / 32; tile < tiles; tile += step) {
    float values[4];
    FlatPlace(tile * kFlatTile, p.n, wide).load(x, values);
#pragma unroll
    for (int e = 0; e < 4; ++e) sums[e] += static_cast<double>(values[e]) * static_cast<double>(values[e]);
  }
  const double total = block::sum<kFlatThreads>((sums[0] + sums[1]) + (sums[2] + sums[3]), partial);
  if (threadIdx.x == 0) p.partial[blockIdx.x] = total;
}

template <class T, class Out>
__global__ void __launch_bounds__(kFlatThreads) scale_by_norm_kernel(const T* x, Out* out, bool wide, const NormalizeParams p) {
  HEDDLE_SHARED(double, partial, [kFlatThreads / 32]);
  double own = 0;
  for (int i = static_cast<int>(threadIdx.x); i < p.partials; i += kFlatThreads) own += p.partial[i];
  const float scale = static_cast<float>(1 / (sqrt(block::sum<kFlatThreads>(own, partial)) + static_cast<double>(p.eps)));
  for_flat_tiles(flat_tiles(p.n), [&](int64_t tile) {
    const FlatPlace place(tile * kFlatTile, p.n, wide);
    float values[4];
    place.load(x, values);
#pragma unroll
    for (int e = 0; e < 4; ++e) values[e] *= scale;
    place.store(out, values);
  });
}

template <class T, class Out>
void launch_normalize(const NormalizeArgs& args, Stream stream) {
  NormalizeParams p{};
  p.n = args.x.numel();
  p.partial = reinterpret_cast<double*>(args.scratch.data());
  p.partials = normalize_partials(p.n);
  p.eps = args.eps;
  if (p.n == 0) return;
  const T* const x = args.x.as<const T>();
  Out* const out = args.out.as<Out>();
  HEDDLE_LAUNCH((sum_of_squares_kernel<T>), static_cast<unsigned>(p.partials), kFlatThreads, 0, stream, x, flat_wide(x), p);
  HEDDLE_LAUNCH((scale_by_norm_kernel<T, Out>), static_cast<unsigned>(flat_blocks(p.n)), kFlatThreads, 0, stream, x, out, flat_wide(x, out), p);
}

}  // namespace heddle::kernels::cuda
