// The contract of attention, checked.
#include "kernels/api/attention.h"

namespace heddle::kernels {
namespace {

// Shapes every direction shares: q (B, T, H, D), k and v (B, S, Hkv, D), out like q, lse (B, H, T), document_start (B, T).
void check_operands(std::string_view op, const View& q, const View& k, const View& v, const View& out, const View& lse, const View& start) {
  const auto shapes = [&] { return concat("q ", shape_text(q), ", k ", shape_text(k), ", v ", shape_text(v)); };
  HEDDLE_CHECK(q.rank == 4 && k.rank == 4 && v.rank == 4, op, "q, k and v must have rank 4: ", shapes());
  HEDDLE_CHECK(is_floating(q.dtype) && k.dtype == q.dtype && v.dtype == q.dtype, op, "q, k and v must have one floating dtype: ", shapes());
  HEDDLE_CHECK(q.size(0) == k.size(0) && q.size(3) == k.size(3), op, "batch or head size differs: ", shapes());
  for (int axis = 0; axis < 4; ++axis) HEDDLE_CHECK(k.size(axis) == v.size(axis), op, "k and v must have one shape: ", shapes());
  HEDDLE_CHECK(k.size(2) > 0 && q.size(2) % k.size(2) == 0, op, "query heads must be a multiple of KV heads: ", shapes());
  HEDDLE_CHECK(k.size(1) >= q.size(1), op, "fewer keys than queries: ", shapes());
  HEDDLE_CHECK(q.size(3) > 0, op, "head size is 0: ", shapes());
  HEDDLE_CHECK(!lse || (lse.rank == 3 && lse.size(0) == q.size(0) && lse.size(1) == q.size(2) && lse.size(2) == q.size(1)), op,
               "lse must be (B, H, T), is ", shape_text(lse), " for ", shapes());
  HEDDLE_CHECK(!lse || lse.dtype == accumulator_of(q.dtype), op, "lse must be ", name_of(accumulator_of(q.dtype)), ", is ", shape_text(lse));
  HEDDLE_CHECK(!start || (start.rank == 2 && start.size(0) == q.size(0) && start.size(1) == q.size(1) && start.dtype == DType::i32), op,
               "document_start must be i32 (B, T), is ", shape_text(start), " for ", shapes());
  HEDDLE_CHECK(!start || k.size(1) == q.size(1), op, "document_start needs as many keys as queries: ", shapes());
  HEDDLE_CHECK(out.rank == 4, op, "out must have rank 4, is ", shape_text(out));
}

void check_like(std::string_view op, std::string_view what, const View& x, std::string_view like, const View& y) {
  bool same = x.rank == y.rank && x.dtype == y.dtype;
  for (int axis = 0; same && axis < y.rank; ++axis) same = x.size(axis) == y.size(axis);
  HEDDLE_CHECK(same, op, what, " must be like ", like, ": ", shape_text(x), " and ", shape_text(y));
}

void check_last_stride(std::string_view op, std::string_view what, const View& x) {
  HEDDLE_CHECK(!x || x.size(-1) <= 1 || x.step(-1) == 1, op, "the last stride of ", what, " is not 1: ", x.step(-1), " in ", shape_text(x));
}

}  // namespace

void check(const AttentionForwardArgs& args) {
  constexpr std::string_view op = "attention_forward";
  check_operands(op, args.q, args.k, args.v, args.out, args.lse, args.document_start);
  check_like(op, "out", args.out, "q", args.q);
  check_last_stride(op, "q", args.q);
  check_last_stride(op, "k", args.k);
  check_last_stride(op, "v", args.v);
  check_last_stride(op, "out", args.out);
  check_last_stride(op, "lse", args.lse);
  check_last_stride(op, "document_start", args.document_start);
  const View& position = args.position;
  HEDDLE_CHECK(!position || (position.rank == 1 && position.size(0) == args.q.size(0) && position.dtype == DType::i32), op,
               "position must be i32 (B), is ", shape_text(position), " for q ", shape_text(args.q));
  HEDDLE_CHECK(!position || !args.document_start, op, "position goes with a cache, document_start with whole sequences: give one of them");
}

void check(const AttentionBackwardArgs& args) {
  constexpr std::string_view op = "attention_backward";
  check_operands(op, args.q, args.k, args.v, args.out, args.lse, args.document_start);
  HEDDLE_CHECK(args.q.size(1) == args.k.size(1), op, "the backward pass needs as many keys as queries: q ", shape_text(args.q), ", k ",
               shape_text(args.k));
  HEDDLE_CHECK(args.lse || args.q.numel() == 0, op, "lse is absent");
  check_like(op, "out", args.out, "q", args.q);
  check_like(op, "d_out", args.d_out, "q", args.q);
  check_like(op, "dq", args.dq, "q", args.q);
  check_like(op, "dk", args.dk, "k", args.k);
  check_like(op, "dv", args.dv, "v", args.v);
  using Named = std::pair<std::string_view, const View*>;
  for (const auto& [what, view] :
       {Named{"q", &args.q}, Named{"k", &args.k}, Named{"v", &args.v}, Named{"out", &args.out}, Named{"d_out", &args.d_out}, Named{"lse", &args.lse},
        Named{"dq", &args.dq}, Named{"dk", &args.dk}, Named{"dv", &args.dv}, Named{"document_start", &args.document_start}}) {
    check_last_stride(op, what, *view);
  }
}

}  // namespace heddle::kernels
