// The contract of matmul, checked.
#include "kernels/api/matmul.h"

namespace heddle::kernels {
namespace {

constexpr std::string_view kOp = "matmul";

std::string operands(const MatmulArgs& args) {
  return concat("a ", shape_text(args.a), args.trans_a ? " transposed" : "", ", b ", shape_text(args.b), args.trans_b ? " transposed" : "");
}

void check_rows(std::string_view what, const View& v) {
  HEDDLE_CHECK(v.size(1) <= 1 || v.step(1) == 1, kOp, "the last stride of ", what, " is not 1: ", v.step(1), " in ", shape_text(v));
  HEDDLE_CHECK(v.size(0) <= 1 || v.step(0) >= v.size(1), kOp, "rows of ", what, " overlap: row stride ", v.step(0), " in ", shape_text(v));
}

void check_matrix(std::string_view what, const View& v, int64_t m, int64_t n, const MatmulArgs& args) {
  HEDDLE_CHECK(v.rank == 2 && v.size(0) == m && v.size(1) == n, kOp, what, " must be (", m, ", ", n, "), is ", shape_text(v), " for ",
               operands(args));
  check_rows(what, v);
}

// Whether two matrices share an element; columns of one packed buffer (same row stride, different columns) do not.
bool overlap(const View& x, const View& y) {
  if (!x || !y || x.numel() == 0 || y.numel() == 0) return false;
  const auto begin = [](const View& v) { return reinterpret_cast<uintptr_t>(v.data); };
  const auto row_bytes = [](const View& v) { return static_cast<uintptr_t>(v.size(-1) * size_of(v.dtype)); };
  const auto step_bytes = [](const View& v) { return static_cast<uintptr_t>(v.rank == 2 ? v.step(0) * size_of(v.dtype) : 0); };
  const auto end = [&](const View& v) { return begin(v) + row_bytes(v) + static_cast<uintptr_t>(v.rank == 2 ? v.size(0) - 1 : 0) * step_bytes(v); };
  if (end(x) <= begin(y) || end(y) <= begin(x)) return false;
  const uintptr_t step = step_bytes(x);
  if (step == 0 || step != step_bytes(y)) return true;
  const uintptr_t ahead = begin(x) <= begin(y) ? (begin(y) - begin(x)) % step : step - (begin(x) - begin(y)) % step;
  return ahead < row_bytes(x) || ahead + row_bytes(y) > step;
}

}  // namespace

void check(const MatmulArgs& args) {
  const View& c = args.c.to;
  HEDDLE_CHECK(args.a.rank == 2 && args.b.rank == 2, kOp, "a and b must be matrices: ", operands(args));
  HEDDLE_CHECK(is_floating(args.a.dtype) && args.a.dtype == args.b.dtype, kOp, "a and b must have one floating dtype: ", operands(args));
  const MatmulShape s = shape_of(args);
  const int64_t k_of_b = args.trans_b ? args.b.size(1) : args.b.size(0);
  HEDDLE_CHECK(s.k == k_of_b, kOp, "inner dimensions differ: ", operands(args));
  check_rows("a", args.a);
  check_rows("b", args.b);

  check_matrix("c", c, s.m, s.n, args);
  const DType dtype = args.a.dtype, sums = accumulator_of(dtype);
  HEDDLE_CHECK(c.dtype == dtype || c.dtype == sums, kOp, "c must be ", name_of(dtype), " or ", name_of(sums), ", is ", shape_text(c));
  for (const auto& [what, v] : {std::pair<std::string_view, const View*>{"a", &args.a}, {"b", &args.b}, {"preact", &args.preact}}) {
    HEDDLE_CHECK(!overlap(c, *v), kOp, "c overlaps ", what, ": ", shape_text(c), " and ", shape_text(*v));
  }

  if (args.bias) {
    HEDDLE_CHECK(args.bias.rank == 1 && args.bias.size(0) == s.n && args.bias.dtype == dtype, kOp, "bias must be ", name_of(dtype), " (", s.n,
                 "), is ", shape_text(args.bias), " for ", operands(args));
    HEDDLE_CHECK(s.n <= 1 || args.bias.step(0) == 1, kOp, "the stride of bias is not 1: ", args.bias.step(0));
    HEDDLE_CHECK(!overlap(c, args.bias), kOp, "c overlaps bias");
  }
  if (args.preact) {
    HEDDLE_CHECK(args.epilogue != Epilogue::none, kOp, "preact is given but there is no activation");
    check_matrix("preact", args.preact, s.m, s.n, args);
    HEDDLE_CHECK(args.preact.dtype == dtype, kOp, "preact must be ", name_of(dtype), ", is ", shape_text(args.preact));
    HEDDLE_CHECK(is_backward(args.epilogue) || (!overlap(args.preact, args.a) && !overlap(args.preact, args.b)), kOp,
                 "preact is written and overlaps a or b");
  }
  HEDDLE_CHECK(!is_backward(args.epilogue) || args.preact || s.m * s.n == 0, kOp, "a backward epilogue needs preact");
  if (args.column_sum) {
    const View& sum = args.column_sum.to;
    HEDDLE_CHECK(sum.rank == 1 && sum.size(0) == s.n && (sum.dtype == dtype || sum.dtype == sums), kOp, "column_sum must be ", name_of(dtype), " or ",
                 name_of(sums), " (", s.n, "), is ", shape_text(sum), " for ", operands(args));
    HEDDLE_CHECK(s.n <= 1 || sum.step(0) == 1, kOp, "the stride of column_sum is not 1: ", sum.step(0));
  }
}

}  // namespace heddle::kernels
