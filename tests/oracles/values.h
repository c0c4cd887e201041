// What an oracle hands back: the value of every output element in float64 and the magnitude that rounding errors scale with, which is the sum
// of the absolute values of the terms it added.
#pragma once

#include <cmath>
#include <vector>

#include "tests/support/difference.h"

namespace heddle::oracle {

struct Values {
  std::vector<double> want, magnitude;

  Values() = default;
  explicit Values(int64_t n) : want(static_cast<size_t>(n)), magnitude(static_cast<size_t>(n)) {}
  // Starts from what an accumulating Sink holds, else from 0.
  explicit Values(const Sink& sink) : Values(sink.to.numel()) {
    for (int64_t i = 0; sink.accumulate && i < sink.to.numel(); ++i) add(i, test::element(sink.to, i));
  }
  void add(int64_t i, double value, double size) {
    want[static_cast<size_t>(i)] += value;
    magnitude[static_cast<size_t>(i)] += size;
  }
  void add(int64_t i, double value) { add(i, value, std::abs(value)); }
};

// Rounded to the dtype, as storing it does.
inline double rounded(DType dtype, double value) {
  switch (dtype) {
    case DType::f32: return static_cast<float>(value);
    case DType::bf16: return static_cast<float>(bf16(static_cast<float>(value)));
    default: return value;
  }
}

}  // namespace heddle::oracle
