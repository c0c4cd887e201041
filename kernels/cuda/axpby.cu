// axpby on a GPU: sums, casts, copies, scaling of any two dtypes; a transposed operand goes through shared memory (transpose.cuh).
#include "kernels/api/elementwise_rules.h"
#include "kernels/cuda/map.cuh"
#include "kernels/cuda/refusals.h"
#include "kernels/cuda/register.h"
#include "kernels/cuda/transpose.cuh"

namespace heddle::kernels::cuda {

struct Axpby {
  static constexpr int kIn = 2, kOut = 1;
  float alpha, beta;

  template <int W>
  __device__ __forceinline__ void operator()(float (&out)[1][W], const float (&in)[2][W]) const {
#pragma unroll
    for (int e = 0; e < W; ++e) out[0][e] = fmaf(alpha, in[0][e], beta * in[1][e]);
  }
};

struct Scale {
  static constexpr int kIn = 1, kOut = 1;
  float alpha;

  template <int W>
  __device__ __forceinline__ void operator()(float (&out)[1][W], const float (&in)[1][W]) const {
#pragma unroll
    for (int e = 0; e < W; ++e) out[0][e] = alpha * in[0][e];
  }
};

namespace {

// Where the elements of a are neighbours down another axis than the one along which b and out are: that axis, else 0.
int transposed_axis(const MapAxes<3>& axes) {
  if (axes.stride[0][0] == 1 || axes.stride[1][0] != 1 || axes.stride[2][0] != 1) return 0;
  for (int axis = 1; axis < axes.count; ++axis) {
    if (axes.stride[0][axis] == 1) return axis;
  }
  return 0;
}

void run_transposed(const AxpbyArgs& args, const MapAxes<3>& axes, int down, Stream stream) {
  TransposeParams p{};
  p.a = args.a.data;
  p.b = args.b.data;
  p.out = args.out.to.data;
  p.half_a = args.a.dtype == DType::bf16;
  p.half_b = args.b.dtype == DType::bf16;
  p.half_out = args.out.to.dtype == DType::bf16;
  p.rows = axes.size[down];
  p.columns = axes.size[0];
  p.a_column = axes.stride[0][0];
  p.b_row = axes.stride[1][down];
  p.out_row = axes.stride[2][down];
  p.across = (p.columns + kTransposeTile - 1) / kTransposeTile;
  p.tiles = p.across * ((p.rows + kTransposeTile - 1) / kTransposeTile);
  p.size[0] = p.size[1] = 1;
  for (int axis = 1, outer = 0; axis < axes.count; ++axis) {
    if (axis == down) continue;
    p.size[outer] = axes.size[axis];
    p.a_at[outer] = axes.stride[0][axis];
    p.b_at[outer] = axes.stride[1][axis];
    p.out_at[outer] = axes.stride[2][axis];
    ++outer;
  }
  p.alpha = static_cast<float>(args.alpha);
  p.beta = static_cast<float>(args.beta);
  p.accumulate = args.out.accumulate;

  // a is read in units down its rows, b and out in units along theirs: swap the two axes of a, and the rule is that of maps.
  MapAxes<3> swapped = axes;
  std::swap(swapped.stride[0][0], swapped.stride[0][down]);
  const auto width_of = [](const View& v) { return static_cast<int>(16 / size_of(v.dtype)); };
  const int from = width_of(args.a), to = width_of(args.out.to);
  if (moves_whole(swapped, 0, args.a, from) && (!args.b || moves_whole(swapped, 1, args.b, to)) && moves_whole(swapped, 2, args.out.to, to)) {
    with_float(args.a.dtype, [&](auto a) {
      with_float(args.out.to.dtype, [&](auto out) {
        using A = decltype(a);
        using Out = decltype(out);
        launch_transpose<16 / static_cast<int>(sizeof(A)), 16 / static_cast<int>(sizeof(Out)), A, Out>(p, stream);
      });
    });
  } else {
    launch_transpose<1, 1, AnyFloat, AnyFloat>(p, stream);
  }
}

Refusal refuses(const AxpbyArgs& args) {
  return refused_on_gpu(contradiction(args), {&args.a, &args.b, &args.out.to});
}

void run(const AxpbyArgs& args, Stream stream) {
  if (args.a.numel() == 0) return;
  const MapAxes<3> axes = map_axes<3>({args.a, args.b ? args.b : args.out.to, args.out.to});
  if (const int down = transposed_axis(axes); down > 0) return run_transposed(args, axes, down, stream);
  const float alpha = static_cast<float>(args.alpha), beta = static_cast<float>(args.beta);
  with_float(args.out.to.dtype, [&](auto zero) {
    using Out = decltype(zero);
    if (!args.b) {
      const Views<2> views = {args.a, args.out.to};
      return with_float(args.a.dtype, [&](auto a) { launch_map<Scale, decltype(a), Out>({alpha}, views, args.out.accumulate, stream); });
    }
    // Of a pair of dtypes the wider one is a.
    const bool swap = args.a.dtype == DType::bf16 && args.b.dtype == DType::f32;
    const Axpby f = swap ? Axpby{beta, alpha} : Axpby{alpha, beta};
    const Views<3> views = {swap ? args.b : args.a, swap ? args.a : args.b, args.out.to};
    const bool accumulate = args.out.accumulate;
    if (views[0].dtype == DType::bf16) {
      launch_map<Axpby, bf16, bf16, Out>(f, views, accumulate, stream);
    } else {
      with_float(views[1].dtype, [&](auto b) { launch_map<Axpby, float, decltype(b), Out>(f, views, accumulate, stream); });
    }
  });
}

}  // namespace

void register_axpby() {
  axpby.add(DeviceType::cuda, {"units", refuses, nullptr, run});
}

}  // namespace heddle::kernels::cuda
