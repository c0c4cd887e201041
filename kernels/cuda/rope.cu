// rope on a GPU: the pairs of the heads that turn are four views of one shape (both halves of x, cosines, sines), a map with two outputs. The table
// is read again for every head and batch, from the cache; memory sees the heads that turn, once in and once out.
#include "kernels/api/elementwise_rules.h"
#include "kernels/cuda/map.cuh"
#include "kernels/cuda/refusals.h"
#include "kernels/cuda/register.h"

namespace heddle::kernels::cuda {

// a, b, cos, sin -> a cos - b sin, b cos + a sin
struct Rotate {
  static constexpr int kIn = 4, kOut = 2;
  float sign;  // of the angle

  template <int W>
  __device__ __forceinline__ void operator()(float (&out)[2][W], const float (&in)[4][W]) const {
#pragma unroll
    for (int e = 0; e < W; ++e) {
      const float a = in[0][e], b = in[1][e], cosine = in[2][e], sine = in[3][e] * sign;
      out[0][e] = fmaf(a, cosine, -(b * sine));
      out[1][e] = fmaf(b, cosine, a * sine);
    }
  }
};

struct Copy {
  static constexpr int kIn = 1, kOut = 1;

  template <int W>
  __device__ __forceinline__ void operator()(float (&out)[1][W], const float (&in)[1][W]) const {
#pragma unroll
    for (int e = 0; e < W; ++e) out[0][e] = in[0][e];
  }
};

namespace {

View heads_of(View v, int64_t begin, int64_t end) {
  v.data += begin * v.stride[2] * size_of(v.dtype);
  v.shape[2] = end - begin;
  return v;
}

Refusal refuses(const RopeArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.x});
}

void run(const RopeArgs& args, Stream stream) {
  const int64_t half = args.x.size(3) / 2;
  const View x = heads_of(args.x, 0, args.rotated), out = heads_of(args.out, 0, args.rotated);
  // Row first + t of the table, whatever the batch and the head.
  View angles = last_axis(x, 0, half);
  angles.data = args.table.data + args.first * args.table.stride[0] * size_of(DType::f32);
  angles.dtype = DType::f32;
  angles.stride = {0, args.table.stride[0], 0, 1};
  View sines = angles;
  sines.data += half * size_of(DType::f32);
  with_float(x.dtype, [&](auto zero) {
    using T = decltype(zero);
    launch_map_by<Rotate, true, T, T, float, float, T, T>(
        {args.inverse ? -1.0f : 1.0f},
        {last_axis(x, 0, half), last_axis(x, half, half), angles, sines, last_axis(out, 0, half), last_axis(out, half, half)}, false, stream);
    if (args.out.data != args.x.data) {
      const int64_t heads = args.x.size(2);
      launch_map<Copy, T, T>({}, {heads_of(args.x, args.rotated, heads), heads_of(args.out, args.rotated, heads)}, false, stream);
    }
  });
}

}  // namespace

void register_rope() {
  rope.add(DeviceType::cuda, {"units", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
