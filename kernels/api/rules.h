// The conditions a candidate puts on its arguments, written as one chain; the first one broken is the refusal.
//
//   return Rules().floating("x", args.x).like("out", args.out, "x", args.x).need(args.p < 1, "p is ", args.p);
#pragma once

#include <initializer_list>
#include <span>

#include "kernels/api/kernel.h"

namespace heddle::kernels {

class Rules {
 public:
  // Parts are joined to text only when the rule is broken; a View prints its shape.
  template <class... Parts>
  Rules& need(bool ok, const Parts&... parts) {
    if (!ok && !refusal_) refusal_ = refused(parts...);
    return *this;
  }

  Rules& present(std::string_view name, const View& v) { return need(static_cast<bool>(v), name, " is absent"); }
  // Present, last stride 1.
  Rules& rows(std::string_view name, const View& v) {
    return present(name, v).need(v.rank == 0 || v.size(-1) <= 1 || v.step(-1) == 1, name, " ", v, ": the last stride is not 1");
  }
  Rules& dtype(std::string_view name, const View& v, DType dtype) {
    return rows(name, v).need(v.dtype == dtype, name, " ", v, " must be ", name_of(dtype));
  }
  Rules& floating(std::string_view name, const View& v) {
    return rows(name, v).need(is_floating(v.dtype), name, " ", v, " must be f32, bf16 or f64");
  }
  Rules& dense(std::string_view name, const View& v) { return present(name, v).need(v.contiguous(), name, " ", v, " must be dense"); }
  Rules& shape(std::string_view name, const View& v, std::initializer_list<int64_t> sizes) {
    bool same = v.rank == static_cast<int>(sizes.size());
    int axis = 0;
    for (int64_t size : sizes) same = same && v.shape[static_cast<size_t>(axis++)] == size;
    std::string want;
    if (!same && !refusal_ && refusals_in_words) {
      for (int64_t size : sizes) want += concat(want.empty() ? "" : ", ", size);
    }
    return need(same, name, " ", v, " must have shape (", want, ")");
  }
  Rules& same_shape(std::string_view name, const View& v, std::string_view like_name, const View& like) {
    bool same = v.rank == like.rank;
    for (int axis = 0; same && axis < v.rank; ++axis) same = v.shape[static_cast<size_t>(axis)] == like.shape[static_cast<size_t>(axis)];
    return need(same, "shapes differ: ", like_name, " ", like, ", ", name, " ", v);
  }
  Rules& same_dtype(std::string_view name, const View& v, std::string_view like_name, const View& like) {
    return need(v.dtype == like.dtype, "dtypes differ: ", like_name, " ", like, ", ", name, " ", v);
  }
  // Shape and dtype of another operand.
  Rules& like(std::string_view name, const View& v, std::string_view like_name, const View& like) {
    return rows(name, v).same_shape(name, v, like_name, like).same_dtype(name, v, like_name, like);
  }
  Rules& like_if_present(std::string_view name, const View& v, std::string_view like_name, const View& other) {
    return v ? like(name, v, like_name, other) : *this;
  }
  // A gradient's way out: the dtype of `like` or its accumulator type.
  Rules& sink_dtype(std::string_view name, const View& v, std::string_view like_name, const View& like) {
    return rows(name, v).need(v.dtype == like.dtype || v.dtype == accumulator_of(like.dtype), name, " ", v, " must have the dtype of ", like_name,
                              " ", like, " or its accumulator type");
  }

  bool broken() const { return refusal_.has_value(); }
  operator Refusal() const { return refusal_; }

 private:
  Refusal refusal_;
};

// Of everything but the last axis.
inline int64_t row_count(const View& v) {
  int64_t rows = 1;
  for (int axis = 0; axis + 1 < v.rank; ++axis) rows *= v.shape[static_cast<size_t>(axis)];
  return rows;
}

inline void check_scratch(std::string_view op, std::span<std::byte> scratch, size_t needed) {
  HEDDLE_CHECK(scratch.size() >= needed, op, "scratch is too small: ", scratch.size(), " bytes, needs ", needed);
}

}  // namespace heddle::kernels
