// The pass over a row that softmax and cross entropy share.
#pragma once

#include <cmath>
#include <limits>

#include "kernels/cpu/rows_internal.h"

namespace heddle::kernels::cpu {

template <class T>
struct MaxSum {
  T max, sum;  // max = max of scale x; sum = sum of exp(scale x - max)
};

// Online (Milakov and Gimelshein 2018), a chunk at a time: the running sum is rescaled when a chunk raises the maximum, so each element costs
// one exp. -Inf counts as absent; NaN and +Inf give a NaN sum.
template <class T>
MaxSum<T> max_sum(Input<T>& x, int64_t offset, int64_t columns, T scale) {
  constexpr T kLowest = -std::numeric_limits<T>::infinity();
  MaxSum<T> row{kLowest, 0};
  for (int64_t column = 0; column < columns; column += kChunk) {
    const int64_t n = std::min(kChunk, columns - column);
    const T* const values = x.at(offset + column, n);
    const T chunk_max = max_lanes(
        n, [=](auto v) HEDDLE_LANEWISE { return v * scale; }, values);
    if (chunk_max > row.max) {
      row.sum *= std::exp(row.max - chunk_max);
      row.max = chunk_max;
    }
    const T max = row.max == kLowest ? T{0} : row.max;  // nothing finite so far: keep -Inf - -Inf out
    row.sum += sum_lanes<1>(
        n, [=](auto v) HEDDLE_LANEWISE { return std::array{vec::exp(v * scale - max)}; }, values)[0];
  }
  return row;
}

}  // namespace heddle::kernels::cpu
