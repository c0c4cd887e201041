// The contract of store_rows, checked.
#include "kernels/api/store_rows.h"

#include "kernels/api/rules.h"

namespace heddle::kernels {

Refusal contradiction(const StoreRowsArgs& args) {
  Rules rules;
  rules.floating("x", args.x).need(args.x.rank == 2, "x ", args.x, " must be (N, C)");
  rules.rows("out", args.out).same_dtype("out", args.out, "x", args.x);
  if (rules.broken()) return rules;
  rules.need(args.out.rank == 2 && args.out.size(1) == args.x.size(1), "out ", args.out, " must be (M, ", args.x.size(1), ")");
  return rules.dtype("rows", args.rows, DType::i32).shape("rows", args.rows, {args.x.size(0)});
}

}  // namespace heddle::kernels
