// What becomes of the sums of a matrix product on their way to memory, for every matmul of this folder, eight neighbouring columns of a row at a
// time:
//
//   z + bias -> preact stored -> f(z), or z f'(preact) -> added to the columns' sums -> cast -> stored in c, or added to it
//
// What is the same for a whole launch is a flag, not a template argument: its branches are uniform, and the kernels that end here are few. Rows move
// in pieces of 16 or 32 bytes where all of them start at multiples of 16 bytes; else, and at the ragged end of a row, element by element.
//
// A warp leaves its sums in shared memory in f32, some rows at a time ("staged"), and takes them up again with eight columns a lane. A lane keeps its
// columns through all rows of the warp: their bias is read once, their sums stay in registers.
//
// Bytes: c once (twice when added to), preact once.
#pragma once

#include <type_traits>

#include "kernels/api/matmul.h"
#include "kernels/cuda/activations.cuh"
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/vec.cuh"

namespace heddle::kernels::cuda {

struct MatmulEpilogue {
  void* c;                                 // (m, n) f32, or the operands' dtype
  void* preact;                            // (m, n) of the operands' dtype or null
  const void* bias;                        // (n) of the operands' dtype or null
  float* column_partials;                  // (parts, partial_row): sums over the rows of each warp's tile; or null
  int64_t c_row, preact_row, partial_row;  // elements between rows; partial_row a multiple of 8
  int m, n;
  Epilogue kind;
  bool f32_out;
  bool accumulate;
  bool aligned;  // rows of c and preact, and bias, start at multiples of 16 bytes
};

// Columns of a row of f32 scratch: whole pieces.
constexpr int64_t scratch_row(int64_t n) {
  return (n + 7) / 8 * 8;
}

inline MatmulEpilogue matmul_epilogue(const MatmulArgs& args, float* column_partials) {
  const MatmulShape shape = shape_of(args);
  MatmulEpilogue p{};
  p.c = args.c.to.data;
  p.preact = args.preact.data;
  p.bias = args.bias.data;
  p.column_partials = column_partials;
  p.c_row = args.c.to.step(0);
  p.preact_row = args.preact ? args.preact.step(0) : 0;
  p.partial_row = scratch_row(shape.n);
  p.m = static_cast<int>(shape.m);
  p.n = static_cast<int>(shape.n);
  p.kind = args.epilogue;
  p.f32_out = args.c.to.dtype == DType::f32;
  p.accumulate = args.c.accumulate;
  p.aligned = rows_aligned_16(args.c.to) && (!args.preact || rows_aligned_16(args.preact)) && (!args.bias || rows_aligned_16(args.bias));
  return p;
}

namespace thread {

// row[column..] up to `columns`; zeros beyond.
template <class T>
__device__ __forceinline__ void read_piece(const T* row, int column, int columns, bool aligned, float (&out)[8]) {
  if (aligned && column + 8 <= columns) {
    load8(row + column, out);
    return;
  }
#pragma unroll
  for (int e = 0; e < 8; ++e) out[e] = column + e < columns ? to_float(row[column + e]) : 0.0f;
}
template <class T>
__device__ __forceinline__ void write_piece(T* row, int column, int columns, bool aligned, const float (&values)[8]) {
  if (aligned && column + 8 <= columns) {
    store8(row + column, values);
    return;
  }
#pragma unroll
  for (int e = 0; e < 8; ++e) {
    if (column + e < columns) row[column + e] = from_float<T>(values[e]);
  }
}

}  // namespace thread

// Eight columns of a lane, row after row. T: dtype of the operands.
template <class T>
class ColumnEpilogue {
 public:
  // What a piece needs of memory, read before it is used: latency is then paid once for several rows.
  struct Ahead {
    float preact[8] = {}, c[8] = {};
  };

  __device__ __forceinline__ ColumnEpilogue(const MatmulEpilogue& p, int column) : p_(p), column_(column) {
    if (p.bias != nullptr && column < p.n) thread::read_piece(static_cast<const T*>(p.bias), column, p.n, p.aligned, bias_);
  }

  __device__ __forceinline__ void fetch(int row, Ahead& ahead) const {
    if (row >= p_.m || column_ >= p_.n) return;
    if (is_backward(p_.kind)) thread::read_piece(preact(row), column_, p_.n, p_.aligned, ahead.preact);
    if (p_.accumulate) {
      with_c(row, [&](auto* c) { thread::read_piece(c, column_, p_.n, p_.aligned, ahead.c); });
    }
  }

  __device__ __forceinline__ void finish(int row, float (&z)[8], const Ahead& ahead) {
    if (row >= p_.m || column_ >= p_.n) return;
#pragma unroll
    for (int e = 0; e < 8; ++e) z[e] += bias_[e];
    if (!is_backward(p_.kind) && p_.preact != nullptr) thread::write_piece(preact(row), column_, p_.n, p_.aligned, z);
    activate(z, ahead.preact);
#pragma unroll
    for (int e = 0; e < 8; ++e) {
      sums_[e] += z[e];
      z[e] += ahead.c[e];
    }
    with_c(row, [&](auto* c) { thread::write_piece(c, column_, p_.n, p_.aligned, z); });
  }

  // warp. Adds up what the lanes with the same columns have seen, kLanesPerRow lanes apart, and leaves it as the part of the warp's kRows rows.
  template <int kRows, int kLanesPerRow>
  __device__ __forceinline__ void store_sums(int first_row) {
    if (p_.column_partials == nullptr || first_row >= p_.m) return;
#pragma unroll
    for (int e = 0; e < 8; ++e) {
#pragma unroll
      for (int offset = kLanesPerRow; offset < 32; offset *= 2) sums_[e] += ptx::shfl_bfly(sums_[e], offset);
    }
    if (static_cast<int>(threadIdx.x) % 32 < kLanesPerRow && column_ < p_.n)
      thread::store8(p_.column_partials + first_row / kRows * p_.partial_row + column_, sums_);
  }

 private:
  __device__ __forceinline__ T* preact(int row) const {
    return static_cast<T*>(p_.preact) + row * p_.preact_row;
  }
  template <class F>
  __device__ __forceinline__ void with_c(int row, const F& f) const {
    if constexpr (!std::is_same_v<T, float>) {
      if (!p_.f32_out) return f(static_cast<T*>(p_.c) + row * p_.c_row);
    }
    f(static_cast<float*>(p_.c) + row * p_.c_row);
  }

  __device__ __forceinline__ void activate(float (&z)[8], const float (&x)[8]) const {
    const auto each = [&](const auto& f) {
#pragma unroll
      for (int e = 0; e < 8; ++e) z[e] = f(z[e], x[e]);
    };
    switch (p_.kind) {
      case Epilogue::none: break;
      case Epilogue::gelu: return each([](float value, float) { return thread::gelu(value); });
      case Epilogue::gelu_backward: return each([](float value, float at) { return value * thread::gelu_derivative(at); });
      case Epilogue::relu2: return each([](float value, float) { return thread::relu2(value); });
      case Epilogue::relu2_backward: return each([](float value, float at) { return value * thread::relu2_derivative(at); });
    }
  }

  const MatmulEpilogue& p_;
  int column_;
  float bias_[8] = {}, sums_[8] = {};
};

// Rows of a warp's staged sums, as pieces of eight columns. Both layouts let the 8-byte stores of mma fragments hit each bank once a phase.
template <int kColumns>
struct RowPieces {
  static constexpr int kPerRow = kColumns / 8, kRowsPerPass = 32 / kPerRow;  // lanes
  __device__ static __forceinline__ int own_row() { return static_cast<int>(threadIdx.x) % 32 / kPerRow; }
  __device__ static __forceinline__ int own_piece() { return static_cast<int>(threadIdx.x) % kPerRow; }
  __device__ static __forceinline__ int own_column() { return own_piece() * 8; }
};
// By a pad of eight columns.
template <int kColumns>
struct StagedRows : RowPieces<kColumns> {
  static constexpr int kRowBytes = (kColumns + 8) * 4;
  __device__ static __forceinline__ int at(int row, int piece) { return row * kRowBytes + piece * 32; }
};
// By pieces that change places, without a pad.
template <int kColumns>
struct SwizzledRows : RowPieces<kColumns> {
  static constexpr int kRowBytes = kColumns * 4;
  // Four pieces among themselves: unrolled code then needs four addresses.
  __device__ static __forceinline__ int at(int row, int piece) { return row * kRowBytes + (piece / 4 * 4 + (piece % 4 ^ row % 4)) * 32; }
};

// warp, converged by the caller after the rows were staged. Finishes kRows rows, the first of which is `first_row` of c; a lane reads what it needs
// of memory for kAhead of its pieces at once.
template <int kRows, class Rows, int kAhead, class T>
__device__ __forceinline__ void finish_staged(ColumnEpilogue<T>& epilogue, uint32_t staging, int first_row) {
  constexpr int kPasses = kRows / Rows::kRowsPerPass;
  static_assert(kRows % Rows::kRowsPerPass == 0 && kPasses % kAhead == 0);
  // Of its 32 bytes every second group of four lanes reads the upper half first: the eight lanes of a wavefront then meet all banks, not half of them
  // twice.
  const int upper_first = static_cast<int>(threadIdx.x) / 4 % 2;
#pragma unroll 1
  for (int pass = 0; pass < kPasses; pass += kAhead) {
    typename ColumnEpilogue<T>::Ahead ahead[kAhead];
#pragma unroll
    for (int i = 0; i < kAhead; ++i) epilogue.fetch(first_row + (pass + i) * Rows::kRowsPerPass + Rows::own_row(), ahead[i]);
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      const int row = (pass + i) * Rows::kRowsPerPass + Rows::own_row();
      const uint32_t from = staging + Rows::at(row, Rows::own_piece());
      const uint4 first = ptx::ld128_shared(from + 16 * upper_first), second = ptx::ld128_shared(from + 16 * (1 - upper_first));
      float values[8];
      thread::unpack_f32(upper_first ? second : first, upper_first ? first : second, values);
      epilogue.finish(first_row + row, values, ahead[i]);
    }
  }
}

}  // namespace heddle::kernels::cuda
