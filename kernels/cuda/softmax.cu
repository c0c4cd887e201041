// The CUDA candidates of the row softmax and its gradient. Bound by memory: forward reads and writes an element once, backward reads two and writes
// one; a row that is longer than registers hold is read twice.
#include "kernels/api/reduce.h"
#include "kernels/cuda/register.h"
#include "kernels/cuda/softmax_rows.cuh"

namespace heddle::kernels::cuda {
namespace {

template <class T>
struct SoftmaxParams {
  const T* x;  // (rows, columns)
  T* out;      // may be x
  int64_t x_row, out_row;
  int rows, columns;
  float scale;
  bool wide;
};

template <class Config, class T>
__global__ void __launch_bounds__(Config::value.threads, 512 / Config::value.threads) softmax_kernel(const SoftmaxParams<T> p) {
  constexpr RowsConfig kConfig = Config::value;
  constexpr int kElements = kWidth<T>, kVectors = kConfig.vectors > 0 ? kConfig.vectors : 1;
  constexpr bool kHeld = kConfig.vectors > 0;
  using At = Piece<T, kConfig.team>;
  HEDDLE_SHARED(float, partial, [2][kConfig.threads / 32]);
  Team<Config> team(partial);
  for (int first = static_cast<int>(blockIdx.x) * kConfig.rows_per_block(); first < p.rows;
       first += static_cast<int>(gridDim.x) * kConfig.rows_per_block()) {
    const int row = first + team.index(), columns = row < p.rows ? p.columns : 0;
    const T* const x = p.x + row * p.x_row;
    T* const out = p.out + row * p.out_row;
    const auto piece = [&](int i) { return At(p.wide, i, team.member(), columns); };
    uint4 held[kVectors] = {};
    thread::MaxSum of_row;
    if constexpr (kHeld) {
#pragma unroll
      for (int i = 0; i < kVectors; ++i) held[i] = thread::load(x, piece(i));
      float values[kVectors][kElements];
#pragma unroll
      for (int i = 0; i < kVectors; ++i) {
        thread::unpack(held[i], values[i]);
#pragma unroll
        for (int e = 0; e < kElements; ++e) values[i][e] = e < piece(i).valid ? values[i][e] * p.scale : -INFINITY;
      }
      of_row.take(values);
      of_row = joined(team, of_row);
    } else {
      of_row = max_sum_of_row<T>(team, x, columns, p.wide, p.scale);
    }
    const float share = 1.0f / of_row.sum;
    for_pieces<T, Config>(columns, [&](int i) {
      float values[kElements];
      thread::unpack(kHeld ? held[kHeld ? i : 0] : thread::load(x, piece(i)), values);
#pragma unroll
      for (int e = 0; e < kElements; ++e) values[e] = thread::exp_of(values[e] * p.scale - of_row.max) * share;
      thread::store(out, piece(i), thread::pack(values));
    });
  }
}

template <class T>
struct SoftmaxBackwardParams {
  const T *y, *dy;  // (rows, columns)
  RowSink dx;
  int64_t y_row, dy_row, dx_row;
  int rows, columns;
  float scale;
  bool wide;
};

template <class Config, class T>
__global__ void __launch_bounds__(Config::value.threads, 512 / Config::value.threads) softmax_backward_kernel(const SoftmaxBackwardParams<T> p) {
  constexpr RowsConfig kConfig = Config::value;
  constexpr int kElements = kWidth<T>, kVectors = kConfig.vectors > 0 ? kConfig.vectors : 1;
  constexpr bool kHeld = kConfig.vectors > 0;
  using At = Piece<T, kConfig.team>;
  HEDDLE_SHARED(float, partial, [2][kConfig.threads / 32]);
  Team<Config> team(partial);
  for (int first = static_cast<int>(blockIdx.x) * kConfig.rows_per_block(); first < p.rows;
       first += static_cast<int>(gridDim.x) * kConfig.rows_per_block()) {
    const int row = first + team.index(), columns = row < p.rows ? p.columns : 0;
    const T* const y = p.y + row * p.y_row;
    const T* const dy = p.dy + row * p.dy_row;
    const auto piece = [&](int i) { return At(p.wide, i, team.member(), columns); };
    uint4 held_y[kVectors] = {}, held_dy[kVectors] = {};
    if constexpr (kHeld) {
#pragma unroll
      for (int i = 0; i < kVectors; ++i) held_y[i] = thread::load(y, piece(i));
#pragma unroll
      for (int i = 0; i < kVectors; ++i) held_dy[i] = thread::load(dy, piece(i));
    }
    const auto values_of = [&](int i, float(&of_y)[kElements], float(&of_dy)[kElements]) {
      thread::unpack(kHeld ? held_y[kHeld ? i : 0] : thread::load(y, piece(i)), of_y);
      thread::unpack(kHeld ? held_dy[kHeld ? i : 0] : thread::load(dy, piece(i)), of_dy);
    };
    float dot = 0;
    for_pieces<T, Config>(columns, [&](int i) {
      float of_y[kElements], of_dy[kElements];
      values_of(i, of_y, of_dy);
#pragma unroll
      for (int e = 0; e < kElements; ++e) dot += of_y[e] * of_dy[e];
    });
    dot = team.sum(dot);
    for_pieces<T, Config>(columns, [&](int i) {
      float of_y[kElements], of_dy[kElements];
      values_of(i, of_y, of_dy);
#pragma unroll
      for (int e = 0; e < kElements; ++e) of_y[e] *= p.scale * (of_dy[e] - dot);
      p.dx.give(row * p.dx_row, piece(i), of_y);
    });
  }
}

template <class T>
void launch(const SoftmaxArgs& args, Stream stream) {
  SoftmaxParams<T> p{};
  p.x = args.x.as<const T>();
  p.out = args.out.as<T>();
  p.x_row = args.x.step(0);
  p.out_row = args.out.step(0);
  p.rows = static_cast<int>(args.x.size(0));
  p.columns = static_cast<int>(args.x.size(1));
  p.scale = args.scale;
  p.wide = all_wide({&args.x, &args.out});
  with_rows_config<kSoftmaxRows>(rows_config(kSoftmaxRows, p.columns, sizeof(T)), [&](auto config) {
    HEDDLE_LAUNCH((softmax_kernel<decltype(config), T>), walking_blocks(config.value, p.rows), config.value.threads, 0, stream, p);
  });
}

template <class T>
void launch(const SoftmaxBackwardArgs& args, Stream stream) {
  SoftmaxBackwardParams<T> p{};
  p.y = args.y.as<const T>();
  p.dy = args.dy.as<const T>();
  p.dx = row_sink(args.dx);
  p.y_row = args.y.step(0);
  p.dy_row = args.dy.step(0);
  p.dx_row = args.dx.to.step(0);
  p.rows = static_cast<int>(args.y.size(0));
  p.columns = static_cast<int>(args.y.size(1));
  p.scale = args.scale;
  p.wide = all_wide({&args.y, &args.dy, &args.dx.to});
  with_rows_config<kSoftmaxRows>(rows_config(kSoftmaxRows, p.columns, sizeof(T)), [&](auto config) {
    HEDDLE_LAUNCH((softmax_backward_kernel<decltype(config), T>), walking_blocks(config.value, p.rows), config.value.threads, 0, stream, p);
  });
}

Refusal refuses_forward(const SoftmaxArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return row_limits("x", args.x);
}
void run_forward(const SoftmaxArgs& args, Stream stream) {
  if (args.x.numel() == 0) return;
  args.x.dtype == DType::bf16 ? launch<bf16>(args, stream) : launch<float>(args, stream);
}

Refusal refuses_backward(const SoftmaxBackwardArgs& args) {
  if (Refusal refusal = contradiction(args)) return refusal;
  return row_limits("y", args.y);
}
void run_backward(const SoftmaxBackwardArgs& args, Stream stream) {
  if (args.y.numel() == 0) return;
  args.y.dtype == DType::bf16 ? launch<bf16>(args, stream) : launch<float>(args, stream);
}

}  // namespace

void register_softmax() {
  softmax.add(DeviceType::cuda, {"rows", refuses_forward, nullptr, run_forward});
  softmax_backward.add(DeviceType::cuda, {"rows", refuses_backward, nullptr, run_backward});
}

}  // namespace heddle::kernels::cuda
