// What the contracts of pointwise.h, rope.h and random.h ask of their arguments: the part of `refuses` that every backend shares.
#pragma once

#include "kernels/api/pointwise.h"
#include "kernels/api/random.h"
#include "kernels/api/rope.h"
#include "kernels/api/rules.h"

namespace heddle::kernels {

// Columns [begin, begin + size) of a view.
inline View last_axis(View v, int64_t begin, int64_t size) {
  v.data += begin * size_of(v.dtype);
  v.shape[static_cast<size_t>(v.rank - 1)] = size;
  return v;
}

// Of a product's second operand: one row of factors, the same for every index of the outer axes, as a view of a's shape.
inline bool is_row_of_factors(const View& a, const View& b) {
  return b.rank == 1 && a.rank > 1 && b.size(0) == a.size(-1);
}
inline View factors_like(const View& a, const View& b) {
  if (!is_row_of_factors(a, b)) return b;
  View rows = a;
  rows.data = b.data;
  rows.stride = {};
  rows.stride[static_cast<size_t>(a.rank - 1)] = 1;
  return rows;
}

inline Refusal contradiction(const AxpbyArgs& args) {
  Rules rules;
  rules.present("a", args.a).need(is_floating(args.a.dtype), "a ", args.a, " must be f32, bf16 or f64");
  rules.floating("out", args.out.to).same_shape("out", args.out.to, "a", args.a);
  if (args.b) rules.floating("b", args.b).same_shape("b", args.b, "a", args.a);
  return rules;
}

inline Refusal contradiction(const MultiplyArgs& args) {
  Rules rules;
  rules.floating("a", args.a).rows("b", args.b).same_dtype("b", args.b, "a", args.a);
  rules.same_shape("out", args.out.to, "a", args.a).sink_dtype("out", args.out.to, "a", args.a);
  return is_row_of_factors(args.a, args.b) ? rules : rules.same_shape("b", args.b, "a", args.a);
}

inline Refusal contradiction(const DivideArgs& args) {
  Refusal product = contradiction(MultiplyArgs{args.a, args.b, args.out});
  return product ? product : Rules().like_if_present("c", args.c, "a", args.a);
}

inline Refusal contradiction(const MapArgs& args) {
  return Rules().floating("x", args.x).like("out", args.out, "x", args.x).need(args.map != Map::softcap || args.cap > 0, "cap is ", args.cap);
}
inline Refusal contradiction(const MapBackwardArgs& args) {
  return Rules()
      .floating("x", args.x)
      .like("dy", args.dy, "x", args.x)
      .same_shape("dx", args.dx.to, "x", args.x)
      .sink_dtype("dx", args.dx.to, "x", args.x)
      .need(args.map != Map::softcap || args.cap > 0, "cap is ", args.cap);
}

inline Refusal contradiction(const SwigluArgs& args) {
  Rules rules;
  rules.floating("x", args.x).rows("out", args.out).same_dtype("out", args.out, "x", args.x);
  rules.need(args.x.rank == args.out.rank && args.x.rank > 0 && args.x.size(-1) == 2 * args.out.size(-1), "x ", args.x,
             " must have twice the columns of out ", args.out);
  return args.x.rank > 0 ? rules.same_shape("gate half of x", last_axis(args.x, 0, args.x.size(-1) / 2), "out", args.out) : rules;
}
inline Refusal contradiction(const SwigluBackwardArgs& args) {
  Refusal forward = contradiction(SwigluArgs{args.x, args.d_out});
  return forward ? forward : Rules().like("dx", args.dx, "x", args.x);
}

inline Refusal contradiction(const FillArgs& args) {
  return Rules().rows("out", args.out);
}

inline Refusal contradiction(const RopeArgs& args) {
  Rules rules;
  rules.floating("x", args.x).like("out", args.out, "x", args.x).need(args.x.rank == 4, "x ", args.x, " must be (B, T, H, D)");
  rules.dtype("table", args.table, DType::f32).need(args.table.rank == 2, "table ", args.table, " must be (P, D)");
  if (args.x.rank != 4 || args.table.rank != 2) return rules;
  return rules.need(args.x.size(3) % 2 == 0, "D is odd: x ", args.x)
      .need(args.table.size(1) == args.x.size(3), "table ", args.table, " and x ", args.x, " differ in D")
      .need(args.first >= 0 && args.table.size(0) >= args.first + args.x.size(1), "table ", args.table, " ends before position ", args.first, " + ",
            args.x.size(1))
      .need(args.rotated >= 0 && args.rotated <= args.x.size(2), "rotated ", args.rotated, " is not within the heads of x ", args.x)
      .need(args.x.data != args.out.data || args.x.stride == args.out.stride, "out lies on x with other strides");
}

inline Refusal contradiction(const NormalArgs& args) {
  return Rules().floating("out", args.out).dense("out", args.out);
}
inline Refusal contradiction(const DropoutArgs& args) {
  return Rules()
      .floating("x", args.x)
      .dense("x", args.x)
      .same_shape("out", args.out.to, "x", args.x)
      .sink_dtype("out", args.out.to, "x", args.x)
      .dense("out", args.out.to)
      .need(args.p >= 0 && args.p < 1, "p = ", args.p, " is not within [0, 1)");
}

}  // namespace heddle::kernels
