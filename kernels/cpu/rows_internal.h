// How the CPU kernels walk strided operands of several dtypes.
//
// Kernels compute on float or double. An operand of that type is used where it lies; another dtype is converted through a small buffer in L1,
// at most kChunk elements at a time. RowNest merges the axes that are dense in every operand and finds where a row starts.
#pragma once

#include <array>
#include <cstring>

#include "kernels/api/types.h"
#include "kernels/cpu/lanes_internal.h"
#include "kernels/cpu/parallel_internal.h"

namespace heddle::kernels::cpu {

inline constexpr int64_t kChunk = 1024;

// to[i] = from[i], rounded to nearest even. f64 to bf16 rounds through f32.
template <class To, class From>
inline void convert(int64_t n, To* to, const From* from) {
  if constexpr (std::is_same_v<To, double> && std::is_same_v<From, bf16>) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]);
  } else if constexpr (std::is_same_v<To, bf16> && std::is_same_v<From, double>) {
    for (int64_t i = 0; i < n; ++i) to[i] = bf16(static_cast<float>(from[i]));
  } else if constexpr (std::is_same_v<To, bf16> || std::is_same_v<From, bf16>) {  // f32 <-> bf16
    constexpr int64_t L = vec::lanes<float>;
    int64_t i = 0;
    for (; i + L <= n; i += L) vec::store(to + i, vec::load(from + i));
    for (; i < n; ++i) to[i] = To(from[i]);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<To>(from[i]);
  }
}

template <class T>
class Input {
 public:
  explicit Input(const View& view) : data_(view.data), dtype_(view.dtype) {}
  // An absent view reads as `value` everywhere.
  Input(const View& view, T value) : Input(view) {
    if (!data_) std::fill(buffer_, buffer_ + kChunk, value);
  }

  // Elements [offset, offset + n) of the view's memory, n <= kChunk. Good until the next call.
  const T* at(int64_t offset, int64_t n) {
    if (!data_) return buffer_;
    if (dtype_ == dtype_of<T>) return reinterpret_cast<const T*>(data_) + offset;
    switch (dtype_) {
      case DType::f32: convert(n, buffer_, reinterpret_cast<const float*>(data_) + offset); break;
      case DType::bf16: convert(n, buffer_, reinterpret_cast<const bf16*>(data_) + offset); break;
      case DType::f64: convert(n, buffer_, reinterpret_cast<const double*>(data_) + offset); break;
      default: break;
    }
    return buffer_;
  }
  // Row r of the answer is every `step`-th element from offset[r] on, n of them; rows n <= kChunk.
  const T* gather(const int64_t* offset, int64_t rows, int64_t n, int64_t step) {
    switch (dtype_) {
      case DType::f32: gather(reinterpret_cast<const float*>(data_), offset, rows, n, step); break;
      case DType::bf16: gather(reinterpret_cast<const bf16*>(data_), offset, rows, n, step); break;
      case DType::f64: gather(reinterpret_cast<const double*>(data_), offset, rows, n, step); break;
      default: break;
    }
    return buffer_;
  }

 private:
  template <class Stored>
  void gather(const Stored* from, const int64_t* offset, int64_t rows, int64_t n, int64_t step) {
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t r = 0; r < rows; ++r) convert(1, buffer_ + r * n + i, from + offset[r] + i * step);
    }
  }

  const std::byte* data_;
  DType dtype_;
  alignas(64) T buffer_[kChunk];
};

// An absent view swallows what is written to it.
template <class T>
class Output {
 public:
  explicit Output(const Sink& sink) : data_(sink.to.data), dtype_(sink.to.dtype), accumulate_(sink.accumulate) {}
  explicit Output(const View& view) : data_(view.data), dtype_(view.dtype) {}

  // Where to write elements [offset, offset + n), n <= kChunk; commit() brings them to the view. Every element must be written.
  T* at(int64_t offset, int64_t n) {
    offset_ = offset;
    n_ = n;
    direct_ = data_ && dtype_ == dtype_of<T> && !accumulate_;
    return direct_ ? reinterpret_cast<T*>(data_) + offset : buffer_;
  }
  void commit() {
    if (direct_ || !data_) return;
    switch (dtype_) {
      case DType::f32: put(reinterpret_cast<float*>(data_) + offset_); break;
      case DType::bf16: put(reinterpret_cast<bf16*>(data_) + offset_); break;
      case DType::f64: put(reinterpret_cast<double*>(data_) + offset_); break;
      default: break;
    }
  }

 private:
  template <class Stored>
  void put(Stored* to) {
    if (accumulate_) {
      const auto add = [](auto a, auto b) HEDDLE_LANEWISE { return a + b; };
      if constexpr (std::is_same_v<Stored, T>) {
        map_lanes(n_, to, add, to, buffer_);
        return;
      }
      alignas(64) T before[kChunk];
      convert(n_, before, to);
      map_lanes(n_, buffer_, add, before, buffer_);
    }
    convert(n_, to, buffer_);
  }

  std::byte* data_;
  DType dtype_;
  bool accumulate_ = false, direct_ = false;
  int64_t offset_ = 0, n_ = 0;
  alignas(64) T buffer_[kChunk];
};

// Runs body(T{}) in the type the arithmetic is done in.
template <class Body>
void with_compute_type(bool in_f64, const Body& body) {
  in_f64 ? body(double{}) : body(float{});
}

// K operands of one shape (absent ones count as dense). `keep_last`: the last axis stays a row of its own, as norms and softmax need it.
template <size_t K>
class RowNest {
 public:
  RowNest(const std::array<View, K>& operands, bool keep_last) {
    const View& shape = operands[0];
    if (shape.rank > 0) columns_ = shape.size(-1);
    std::array<int64_t, K> last{};  // 1 but for a transposed operand
    for (size_t k = 0; k < K; ++k) last[k] = columns_ > 1 && operands[k] ? operands[k].step(-1) : 1;
    bool inner = true;  // the axis merged so far is the row itself
    for (int axis = shape.rank - 2; axis >= 0; --axis) {
      const int64_t size = shape.shape[axis];
      if (size == 1) continue;
      std::array<int64_t, K> stride{};
      for (size_t k = 0; k < K; ++k) stride[k] = operands[k] ? operands[k].stride[axis] : 0;
      bool dense = !(inner && keep_last);
      for (size_t k = 0; k < K; ++k) {
        const int64_t expected = inner ? columns_ * last[k] : stride_[static_cast<size_t>(outer_ - 1)][k] * size_[static_cast<size_t>(outer_ - 1)];
        dense = dense && (!operands[k] || stride[k] == expected);
      }
      if (dense && inner) {
        columns_ *= size;
      } else if (dense) {
        size_[static_cast<size_t>(outer_ - 1)] *= size;
      } else {
        size_[static_cast<size_t>(outer_)] = size;
        stride_[static_cast<size_t>(outer_)] = stride;
        ++outer_;
        inner = false;
      }
      rows_ = inner ? rows_ : rows_ * size;
    }
  }

  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

  // Element offset of the row in every operand.
  std::array<int64_t, K> offsets(int64_t row) const {
    std::array<int64_t, K> at{};
    for (int axis = 0; axis < outer_; ++axis) {  // innermost first
      const bool last = axis + 1 == outer_;
      const int64_t size = size_[static_cast<size_t>(axis)], next = last ? 0 : row / size, index = last ? row : row - next * size;
      for (size_t k = 0; k < K; ++k) at[k] += index * stride_[static_cast<size_t>(axis)][k];
      row = next;
    }
    return at;
  }

  // body(offsets, column, n) for pieces [column, column + n) of every row, n <= kChunk, on all threads; for bodies that treat elements
  // independently. `offsets` are those of the row.
  template <class Body>
  void for_pieces(const Body& body) const {
    const int64_t per_row = ceil_div(columns_, kChunk), pieces = rows_ * per_row;
    for_tiles(pieces, rows_per_tile(std::min(columns_, kChunk)), rows_ * columns_, [&](int64_t begin, int64_t end) {
      for (int64_t piece = begin; piece < end; ++piece) {
        const int64_t row = piece / per_row, column = (piece - row * per_row) * kChunk;
        body(offsets(row), column, std::min(kChunk, columns_ - column));
      }
    });
  }

 private:
  int64_t rows_ = 1, columns_ = 1;
  int outer_ = 0;
  std::array<int64_t, View::kMaxRank> size_{};  // outer axes, innermost first
  std::array<std::array<int64_t, K>, View::kMaxRank> stride_{};
};

// sink[c] (+)= partials[0][c] + partials[1][c] + ..., in this order; rows of `partials` are `stride` elements apart.
template <class T>
void add_partials(const T* partials, int64_t count, int64_t stride, int64_t columns, const Sink& sink) {
  for_tiles(columns, kChunk, count * columns, [&](int64_t begin, int64_t end) {
    Output<T> out(sink);
    T* sum = out.at(begin, end - begin);
    std::fill(sum, sum + (end - begin), T{0});
    for (int64_t i = 0; i < count; ++i) {
      map_lanes(
          end - begin, sum, [](auto a, auto b) HEDDLE_LANEWISE { return a + b; }, sum, partials + i * stride + begin);
    }
    out.commit();
  });
}

}  // namespace heddle::kernels::cpu
