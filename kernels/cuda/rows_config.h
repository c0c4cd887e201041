// Which threads share a row, and where rows begin: pure functions of lengths and strides.
#pragma once

#include <cstdint>

#include "kernels/api/types.h"

namespace heddle::kernels::cuda {

struct RowsConfig {
  int team = 32;      // threads that share a row: a part of a warp, a warp, or the whole block
  int vectors = 1;    // of 16 bytes, of a row held in registers by each of them; 0: none, the row is read again where it is needed again
  int threads = 128;  // of a block

  constexpr int rows_per_block() const { return threads / team; }
  constexpr int64_t longest_row(int64_t element_bytes) const { return int64_t{team} * vectors * (16 / element_bytes); }
  friend constexpr bool operator==(const RowsConfig&, const RowsConfig&) = default;
};

// The first that holds a row; the last of every list holds any.
template <int kCount>
constexpr RowsConfig rows_config(const RowsConfig (&built)[kCount], int64_t columns, int64_t element_bytes) {
  for (const RowsConfig& config : built) {
    if (config.vectors > 0 && columns <= config.longest_row(element_bytes)) return config;
  }
  return built[kCount - 1];
}

// Norms. Up to 1024 bf16 (512 f32) a warp or a quarter of one holds a row and needs no barrier; up to 8192 (4096) a block does. Heads of 64 and 128
// are rows of a quarter warp.
inline constexpr RowsConfig kNormRows[] = {{8, 1, 128}, {8, 2, 128}, {32, 2, 128}, {32, 4, 128}, {256, 2, 256}, {256, 4, 256}, {256, 0, 256}};
// Their gradients: the sums for d_gain and d_bias take two more registers an element, so a thread has at most two vectors.
inline constexpr RowsConfig kNormBackwardRows[] = {{8, 1, 128},   {8, 2, 128},   {32, 2, 128},  {128, 1, 128},
                                                   {128, 2, 128}, {256, 2, 256}, {512, 2, 512}, {256, 0, 256}};
// Softmax: no hot kernel.
inline constexpr RowsConfig kSoftmaxRows[] = {{32, 4, 128}, {256, 4, 256}, {256, 0, 256}};

// Rows that K operands of one shape have in common: which row lies where. Axes that are dense in every operand are one.
template <int kOperands>
struct RowNest {
  static constexpr int kAxes = View::kMaxRank - 1;
  struct At {
    int index[kAxes];
  };
  int rows = 1;
  int extent[kAxes] = {1, 1, 1};          // innermost first
  int64_t stride[kOperands][kAxes] = {};  // elements

  HEDDLE_HOST_DEVICE At at(int row) const {
    if (extent[0] == rows) return {{row, 0, 0}};
    const int outer = row / extent[0], outermost = outer / extent[1];
    return {{row - outer * extent[0], outer - outermost * extent[1], outermost}};
  }
  HEDDLE_HOST_DEVICE int64_t offset(int operand, const At& at) const {
    int64_t elements = 0;
    for (int axis = 0; axis < kAxes; ++axis) elements += at.index[axis] * stride[operand][axis];
    return elements;
  }
};

inline constexpr int64_t kMostRows = int64_t{1} << 30, kMostColumns = int64_t{1} << 30;

// The shape is operand 0's; others may be absent.
template <int kOperands>
RowNest<kOperands> row_nest(const View (&operands)[kOperands]) {
  RowNest<kOperands> nest;
  const View& shape = operands[0];
  int axes = 0;
  for (int axis = shape.rank - 2; axis >= 0; --axis) {
    const int64_t n = shape.shape[axis];
    nest.rows *= static_cast<int>(n);
    if (n == 1) continue;
    bool dense = axes > 0;
    for (int k = 0; dense && k < kOperands; ++k) dense = !operands[k] || operands[k].stride[axis] == nest.extent[axes - 1] * nest.stride[k][axes - 1];
    if (dense) {
      nest.extent[axes - 1] *= static_cast<int>(n);
      continue;
    }
    nest.extent[axes] = static_cast<int>(n);
    for (int k = 0; k < kOperands; ++k) nest.stride[k][axes] = operands[k] ? operands[k].stride[axis] : 0;
    ++axes;
  }
  return nest;
}

}  // namespace heddle::kernels::cuda
