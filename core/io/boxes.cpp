#include "core/io/boxes.h"

#include <algorithm>
#include <array>

#include "kernels/api/check.h"

namespace heddle {

Box whole_box(std::span<const int64_t> shape) {
  Box box;
  for (const int64_t n : shape) box.push_back({0, n});
  return box;
}

int64_t volume(const Box& box) {
  // An empty range first: the others may have any size then.
  if (std::any_of(box.begin(), box.end(), [](const Range& r) { return r.size() == 0; })) return 0;
  int64_t n = 1;
  for (const Range& r : box) n *= r.size();
  return n;
}

bool is_inside(const Box& box, std::span<const int64_t> shape) {
  if (box.size() != shape.size()) return false;
  for (size_t i = 0; i < box.size(); ++i) {
    if (box[i].begin < 0 || box[i].end < box[i].begin || box[i].end > shape[i]) return false;
  }
  return true;
}

std::string box_text(const Box& box) {
  std::string text = "[";
  for (size_t i = 0; i < box.size(); ++i) {
    if (i > 0) text += ", ";
    text += concat(box[i].begin, ":", box[i].end);
  }
  return text + "]";
}

bool intersect(const Box& a, const Box& b, Box& out) {
  out.resize(a.size());
  for (size_t i = 0; i < a.size(); ++i) {
    out[i] = {std::max(a[i].begin, b[i].begin), std::min(a[i].end, b[i].end)};
    if (out[i].begin >= out[i].end) return false;
  }
  return true;
}

bool tiles_exactly(std::span<const int64_t> shape, std::span<const Box* const> boxes) {
  constexpr size_t kMostCorners = size_t{4} << 20;
  constexpr size_t kMostRank = 8;
  const size_t rank = shape.size();
  const Box whole = whole_box(shape);
  for (const Box* box : boxes) {
    if (!is_inside(*box, shape)) return false;
  }
  if (boxes.size() == 1) return *boxes[0] == whole;  // the common case, without a sort
  if (rank > kMostRank || boxes.size() > (kMostCorners >> rank)) {
    fail("checkpoint", concat(boxes.size(), " boxes of rank ", rank, " for one tensor, more than are accepted"), ExitCode::bad_data);
  }

  struct Corner {
    std::array<int64_t, kMostRank> at{};
    int sign = 0;
  };
  std::vector<Corner> corners;
  corners.reserve((boxes.size() + 1) << rank);
  const auto add = [&](const Box& box, int sign) {
    if (volume(box) == 0) return;
    for (size_t mask = 0; mask < size_t{1} << rank; ++mask) {
      Corner c;
      c.sign = sign;
      for (size_t i = 0; i < rank; ++i) {
        const bool upper = mask >> i & 1;
        c.at[i] = upper ? box[i].end : box[i].begin;
        if (upper) c.sign = -c.sign;
      }
      corners.push_back(c);
    }
  };
  for (const Box* box : boxes) add(*box, 1);
  add(whole, -1);
  std::sort(corners.begin(), corners.end(), [](const Corner& a, const Corner& b) { return a.at < b.at; });
  for (size_t i = 0; i < corners.size();) {
    int sum = 0;
    const size_t first = i;
    for (; i < corners.size() && corners[i].at == corners[first].at; ++i) sum += corners[i].sign;
    if (sum != 0) return false;
  }
  return true;
}

namespace {

// Elements [begin, end) of axes [axis, rank), inside the prefix of single-index ranges already in `prefix`.
void split(std::span<const int64_t> shape, size_t axis, int64_t begin, int64_t end, Box& prefix, std::vector<Box>& out) {
  if (begin >= end) return;
  int64_t inner = 1;
  for (size_t i = axis + 1; i < shape.size(); ++i) inner *= shape[i];
  const auto emit = [&](int64_t from, int64_t to) {  // whole rows of this axis
    if (from >= to) return;
    Box box = prefix;
    box.push_back({from, to});
    for (size_t i = axis + 1; i < shape.size(); ++i) box.push_back({0, shape[i]});
    out.push_back(std::move(box));
  };
  const auto descend = [&](int64_t row, int64_t from, int64_t to) {
    prefix.push_back({row, row + 1});
    split(shape, axis + 1, from, to, prefix, out);
    prefix.pop_back();
  };
  const int64_t first = begin / inner, last = end / inner, head = begin % inner, tail = end % inner;
  if (head != 0 && first == last) {
    descend(first, head, tail);
    return;
  }
  if (head != 0) descend(first, head, inner);
  emit(head == 0 ? first : first + 1, last);
  if (tail != 0) descend(last, 0, tail);
}

}  // namespace

std::vector<Box> split_flat_range(std::span<const int64_t> shape, int64_t begin, int64_t end) {
  const int64_t total = volume(whole_box(shape));
  HEDDLE_CHECK(0 <= begin && begin <= end && end <= total, "checkpoint", "flat range [", begin, ", ", end, ") of a tensor with ", total, " elements");
  std::vector<Box> out;
  if (begin == end) return out;
  if (shape.empty()) {
    out.emplace_back();
    return out;
  }
  Box prefix;
  split(shape, 0, begin, end, prefix, out);
  return out;
}

}  // namespace heddle
