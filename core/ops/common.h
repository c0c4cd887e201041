// Helpers of the op files.
#pragma once

#include "core/autograd/node.h"
#include "core/launch.h"
#include "core/ops/ops.h"
#include "core/tensor.h"
#include "kernels/api/check.h"

namespace heddle {

// (..., C) seen as (N, C): the kernels' row form. Contiguous tensors only.
inline View rows_of(const Tensor& t) {
  if (!t) return {};
  HEDDLE_CHECK(t.is_contiguous() && t.rank() >= 1, "rows", "a contiguous tensor is needed, not ", shape_text(t.shape()), " with strides ",
               shape_text(t.strides()));
  const int64_t columns = t.size(-1);
  return make_view(t.impl().data, t.dtype(), {columns ? t.numel() / columns : 0, columns});
}
inline Sink rows_of(Sink sink) {
  if (!sink) return sink;
  const int64_t columns = sink.to.size(-1);
  return {make_view(sink.to.data, sink.to.dtype, {columns ? sink.to.numel() / columns : 0, columns}), sink.accumulate};
}

inline Shape with_last(Shape shape, int64_t size) {
  shape[-1] = size;
  return shape;
}

inline void check_floating(const Tensor& t, std::string_view op, std::string_view what) {
  HEDDLE_CHECK(t && is_floating(t.dtype()), op, what, " must be a floating tensor");
}
inline void check_same_dtype(const Tensor& a, const Tensor& b, std::string_view op) {
  HEDDLE_CHECK(!b || (a.dtype() == b.dtype() && a.device() == b.device()), op, "operands differ: ", shape_text(a.view()), " on ", name_of(a.device()),
               ", ", shape_text(b.view()), " on ", name_of(b.device()));
}
inline void check_same_dtype(const Tensor& a, const Weight& b, std::string_view op) {
  check_same_dtype(a, b.slot(), op);
}

}  // namespace heddle
