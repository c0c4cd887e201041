// Boxes: which part of a tensor a piece is. All slicing (tensor parallel, ZeRO, none) is n-D boxes, so no rank number has a meaning on disk.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/state.h"

namespace heddle {

using Box = std::vector<Range>;  // one half-open range an axis; no axes: a scalar

Box whole_box(std::span<const int64_t> shape);
int64_t volume(const Box& box);  // elements; the caller has checked that they fit
bool is_inside(const Box& box, std::span<const int64_t> shape);
std::string box_text(const Box& box);  // "[0:4, 8:16]"

// False when they share no element. All three have the same rank.
bool intersect(const Box& a, const Box& b, Box& out);

// True when the boxes cover every element of `shape` exactly once. Exact in O(n log n): the sum of the boxes' indicator functions equals the whole's
// iff their mixed derivatives do, and the derivative of a box is a sign at each of its 2^rank corners. At most 4M corners are accepted.
bool tiles_exactly(std::span<const int64_t> shape, std::span<const Box* const> boxes);

// The boxes that together are elements [begin, end) of the row-major order of `shape`, in that order: at most 2 * rank - 1 of them.
// For optimizer slices that are ranges of a flat buffer.
std::vector<Box> split_flat_range(std::span<const int64_t> shape, int64_t begin, int64_t end);

// Visits the elements of `overlap`, a part of both `a` and `b` stored dense row-major, as the longest runs contiguous in both, in ascending order:
// visit(first element in a, first element in b, elements).
template <class Visit>
void for_each_run(const Box& overlap, const Box& a, const Box& b, Visit visit) {
  const int rank = static_cast<int>(overlap.size());
  // Trailing axes that both hold whole belong to one run, and so does one more axis in front of them.
  int64_t run = 1;
  int axis = rank - 1;
  for (; axis >= 0; --axis) {
    run *= overlap[axis].size();
    if (overlap[axis] != a[axis] || overlap[axis] != b[axis]) break;
  }
  std::vector<int64_t> index, step_a(rank), step_b(rank);
  int64_t at_a = 0, at_b = 0, sa = 1, sb = 1;
  for (int i = rank - 1; i >= 0; --i) {
    step_a[i] = sa;
    step_b[i] = sb;
    at_a += (overlap[i].begin - a[i].begin) * sa;
    at_b += (overlap[i].begin - b[i].begin) * sb;
    sa *= a[i].size();
    sb *= b[i].size();
  }
  if (run == 0) return;
  const int outer = axis > 0 ? axis : 0;
  for (int i = 0; i < outer; ++i) {
    if (overlap[i].size() == 0) return;
  }
  index.assign(outer, 0);
  while (true) {
    visit(at_a, at_b, run);
    int i = outer - 1;
    for (; i >= 0; --i) {
      at_a += step_a[i];
      at_b += step_b[i];
      if (++index[i] < overlap[i].size()) break;
      at_a -= step_a[i] * overlap[i].size();
      at_b -= step_b[i] * overlap[i].size();
      index[i] = 0;
    }
    if (i < 0) return;
  }
}

}  // namespace heddle
