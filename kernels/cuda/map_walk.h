// How the lanes of a grid walk K strided views of one shape: the axes on the fewest loops, units of `width` elements dealt in the order of the last
// axis.
#pragma once

#include <array>
#include <cstdint>

#include "kernels/api/types.h"

namespace heddle::kernels::cuda {

template <int K>
using Views = std::array<View, static_cast<size_t>(K)>;

// The axes of K views after merging those that are dense in all of them; axis 0 is the innermost.
template <int K>
struct MapAxes {
  int count = 1;
  int64_t size[View::kMaxRank] = {1};
  int64_t stride[K][View::kMaxRank] = {};  // elements
};

// The views have the shape of the first one; axes of size 1 are dropped. A view's stride may be 0: the same element again and again.
template <int K>
MapAxes<K> map_axes(const Views<K>& views) {
  MapAxes<K> axes;
  axes.count = 0;
  for (int axis = views[0].rank - 1; axis >= 0; --axis) {
    const int64_t size = views[0].shape[static_cast<size_t>(axis)];
    if (size == 1) continue;
    const int inner = axes.count - 1;
    bool dense = inner >= 0;
    for (int k = 0; k < K && dense; ++k) {
      dense = views[static_cast<size_t>(k)].stride[static_cast<size_t>(axis)] == axes.stride[k][inner] * axes.size[inner];
    }
    if (dense) {
      axes.size[inner] *= size;
      continue;
    }
    axes.size[axes.count] = size;
    for (int k = 0; k < K; ++k) axes.stride[k][axes.count] = views[static_cast<size_t>(k)].stride[static_cast<size_t>(axis)];
    ++axes.count;
  }
  if (axes.count == 0) {  // one element
    axes.count = 1;
    axes.size[0] = 1;
    for (int k = 0; k < K; ++k) axes.stride[k][0] = 1;
  }
  return axes;
}

// Can `width` elements of view k be moved as one, wherever a unit starts?
template <int K>
bool moves_whole(const MapAxes<K>& axes, int k, const View& view, int width) {
  bool whole = axes.stride[k][0] == 1 && reinterpret_cast<uintptr_t>(view.data) % static_cast<uintptr_t>(width * size_of(view.dtype)) == 0;
  for (int axis = 1; axis < axes.count; ++axis) whole = whole && axes.stride[k][axis] % width == 0;
  return whole;
}

template <int K>
struct MapWalk {
  static constexpr int kMostOuter = View::kMaxRank - 1;

  int64_t units, units_of_row, columns;
  int outer;  // axes outside the row
  int64_t size[kMostOuter];
  int64_t stride[K][kMostOuter];
  int64_t step[K];  // between columns

  MapWalk(const MapAxes<K>& axes, int width) : columns(axes.size[0]), outer(axes.count - 1) {
    units_of_row = (columns + width - 1) / width;
    units = units_of_row;
    for (int axis = 0; axis < kMostOuter; ++axis) {
      const bool used = axis < outer;
      size[axis] = used ? axes.size[axis + 1] : 1;
      units *= size[axis];
      for (int k = 0; k < K; ++k) stride[k][axis] = used ? axes.stride[k][axis + 1] : 0;
    }
    for (int k = 0; k < K; ++k) step[k] = axes.stride[k][0];
  }

  // Where unit `index` starts in every view; how many elements it has: `width`, fewer at the end of a row, none beyond the last unit.
  HEDDLE_HOST_DEVICE int locate(int64_t index, int width, int64_t (&at)[K]) const {
    if (index >= units) return 0;
    int64_t row = 0, unit = index;
    if (outer > 0) {  // else no division
      row = index / units_of_row;
      unit = index - row * units_of_row;
    }
    const int64_t column = unit * width;
    for (int k = 0; k < K; ++k) at[k] = column * step[k];
    for (int axis = 0; axis < kMostOuter; ++axis) {
      if (axis >= outer) break;
      const int64_t next = axis + 1 == outer ? 0 : row / size[axis];
      const int64_t here = row - next * size[axis];
      for (int k = 0; k < K; ++k) at[k] += here * stride[k][axis];
      row = next;
    }
    const int64_t left = columns - column;
    return left < width ? static_cast<int>(left) : width;
  }
};

}  // namespace heddle::kernels::cuda
