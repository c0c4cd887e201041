// The contracts of the reductions, checked.
#include "kernels/api/reduce.h"

#include "kernels/api/rules.h"

namespace heddle::kernels {

Refusal contradiction(const SumArgs& args) {
  Rules rules;
  rules.dense("x", args.x).need(is_floating(args.x.dtype), "x ", args.x, " must be f32, bf16 or f64");
  return rules.present("out", args.out.to)
      .need(args.out.to.numel() == 1, "out ", args.out.to, " must be one number")
      .need(args.out.to.dtype == DType::f64 || args.out.to.dtype == accumulator_of(args.x.dtype), "out ", args.out.to, " must be ",
            name_of(accumulator_of(args.x.dtype)), " or f64");
}

Refusal contradiction(const ColumnSumArgs& args) {
  Rules rules;
  rules.floating("x", args.x).need(args.x.rank == 2, "x ", args.x, " must be (N, C)");
  return args.x.rank == 2 ? rules.shape("out", args.out.to, {args.x.size(1)}).sink_dtype("out", args.out.to, "x", args.x) : rules;
}

Refusal contradiction(const SoftmaxArgs& args) {
  return Rules().floating("x", args.x).need(args.x.rank == 2, "x ", args.x, " must be (N, C)").like("out", args.out, "x", args.x);
}

Refusal contradiction(const SoftmaxBackwardArgs& args) {
  return Rules()
      .floating("y", args.y)
      .need(args.y.rank == 2, "y ", args.y, " must be (N, C)")
      .like("dy", args.dy, "y", args.y)
      .same_shape("dx", args.dx.to, "y", args.y)
      .sink_dtype("dx", args.dx.to, "y", args.y);
}

}  // namespace heddle::kernels
