// Every candidate of matmul against the float64 oracle: shapes, transposes, strides, epilogues, sinks, dtypes, thread counts, refusals.
#include "kernels/api/matmul.h"

#include <limits>

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/matmul.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;

const std::vector<Candidate<MatmulArgs>>& candidates() {
  test::register_kernels();
  return matmul.candidates(test::kDevice);
}
constexpr bool kCuda = test::kDevice == DeviceType::cuda;

// One call's worth of operands, owned.
struct Case {
  int64_t m = 1, n = 1, k = 1;
  DType dtype = DType::f32, c_dtype = DType::f32;
  bool trans_a = false, trans_b = false, accumulate = false;
  bool bias = false, preact = false, column_sum = false, accumulate_sum = false;
  Epilogue epilogue = Epilogue::none;
  int64_t padding = 0;
  double spread = 1;
  DType sum_dtype = DType::f32;
  bool aligned = false;  // rows of a and b at multiples of 16 bytes; those of c and preact, too, without padding
  bool gram = false;     // b is a; n is m, trans_b not trans_a
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.m << "x" << c.n << "x" << c.k << " " << name_of(c.dtype) << "->" << name_of(c.c_dtype) << (c.trans_a ? " T" : " N")
             << (c.trans_b ? "T" : "N") << (c.accumulate ? " +=" : " =") << " epilogue " << static_cast<int>(c.epilogue) << " bias " << c.bias
             << " preact " << c.preact << " sum " << c.column_sum << c.accumulate_sum << " padding " << c.padding << (c.aligned ? " aligned" : "")
             << (c.gram ? " gram" : "");
}

struct Operands {
  Buffer a, b, c, bias, preact, column_sum;
  MatmulArgs args;

  explicit Operands(const Case& x) {
    const auto made = [&](DType dtype, int64_t rows, int64_t columns, bool aligned) {
      if (aligned) return Buffer(dtype, {rows, columns}, {.padding = (8 - columns % 8) % 8 + (x.padding ? 8 : 0)});
      return Buffer(dtype, {rows, columns}, {x.padding, x.padding});
    };
    const bool results_aligned = x.aligned && x.padding == 0;
    const double scale = 1 / std::sqrt(static_cast<double>(std::max<int64_t>(x.k, 1)));
    a = x.trans_a ? made(x.dtype, x.k, x.m, x.aligned) : made(x.dtype, x.m, x.k, x.aligned);
    b = x.trans_b ? made(x.dtype, x.n, x.k, x.aligned) : made(x.dtype, x.k, x.n, x.aligned);
    a.normal(1, 0, x.spread);
    b.normal(2, 0.1 * scale, scale);
    c = made(x.c_dtype, x.m, x.n, results_aligned);
    if (x.accumulate) c.normal(3);
    bias = Buffer(x.dtype, {x.n});
    bias.normal(4);
    preact = made(x.dtype, x.m, x.n, results_aligned);
    if (is_backward(x.epilogue)) preact.normal(6, 0, 2);
    column_sum = Buffer(x.sum_dtype, {x.n});
    if (x.accumulate_sum) column_sum.normal(7);

    args.a = a.view();
    args.b = x.gram ? a.view() : b.view();
    args.trans_a = x.trans_a;
    args.trans_b = x.trans_b;
    args.c = {c.view(), x.accumulate};
    args.epilogue = x.epilogue;
    if (x.bias) args.bias = bias.view();
    if (x.preact) args.preact = preact.view();
    if (x.column_sum) args.column_sum = {column_sum.view(), x.accumulate_sum};
  }
  Operands(const Operands&) = delete;

  bool run(const Candidate<MatmulArgs>& candidate) {  // false: it refuses
    if (candidate.refuses && candidate.refuses(args)) return false;
    const struct Forced {
      explicit Forced(std::string_view name) { matmul.force(name); }
      ~Forced() { matmul.force(""); }
    } forced(candidate.name);
    test::run(matmul, args);
    return true;
  }
  bool same_results(const Operands& other) const { return c == other.c && preact == other.preact && column_sum == other.column_sum; }
};

void check_case(Case x) {
  const auto want = oracle::matmul(Operands(x).args);
  int ran = 0;
  for (const auto& candidate : candidates()) {
    Operands o(x);
    INFO(candidate.name << ": " << x);
    if (!o.run(candidate)) continue;
    ++ran;
    // K products and sums, bias, activation (its own error is below 16 roundings), accumulation
    const double terms = static_cast<double>(x.k) + 20;
    CHECK_CLOSE(o.c.view(), want.c, want.c_magnitude, Bound{x.c_dtype, terms});
    if (x.preact && !is_backward(x.epilogue)) CHECK_CLOSE(o.preact.view(), want.preact, want.preact_magnitude, Bound{x.dtype, terms});
    if (x.column_sum)
      CHECK_CLOSE(o.column_sum.view(), want.column_sum, want.column_sum_magnitude, Bound{x.sum_dtype, terms + static_cast<double>(x.m)});
    CHECK(o.a.guards_intact());
    CHECK(o.c.guards_intact());
    CHECK(o.preact.guards_intact());
    CHECK(o.column_sum.guards_intact());
  }
  CHECK(ran > 0);
  if (kCuda && x.dtype == DType::bf16 && !x.aligned && x.k > 0) {  // what tensor cores ask for
    x.aligned = true;
    check_case(x);
  }
}

using test::kFloating;
constexpr std::array kEpilogues{Epilogue::none, Epilogue::gelu, Epilogue::gelu_backward, Epilogue::relu2, Epilogue::relu2_backward};

}  // namespace

TEST_CASE("matmul: shapes, ragged and of size 0 and 1, in every transposition and dtype") {
  const std::array<std::array<int64_t, 3>, 19> shapes{{{1, 1, 1},
                                                       {1, 17, 33},
                                                       {5, 1, 9},
                                                       {2, 3, 1},
                                                       {7, 19, 13},
                                                       {6, 16, 8},
                                                       {33, 65, 31},
                                                       {64, 64, 64},
                                                       {97, 130, 70},
                                                       {3, 515, 20},
                                                       {260, 5, 40},
                                                       {0, 4, 3},
                                                       {4, 0, 3},
                                                       {4, 5, 0},
                                                       {13, 24, 300},
                                                       {100, 33, 17},
                                                       {129, 16, 1},
                                                       {96, 97, 700},
                                                       {107, 1, 5}}};
  for (const auto& [m, n, k] : shapes) {
    for (DType dtype : kFloating) {
      for (int trans = 0; trans < 4; ++trans) {
        Case x{.m = m, .n = n, .k = k, .dtype = dtype, .c_dtype = dtype, .trans_a = (trans & 1) != 0, .trans_b = (trans & 2) != 0};
        check_case(x);
        x.padding = 3;
        x.c_dtype = accumulator_of(dtype);
        x.accumulate = true;
        check_case(x);
      }
    }
  }
}

TEST_CASE("matmul: every epilogue with every option, in every dtype") {
  for (DType dtype : kFloating) {
    for (Epilogue epilogue : kEpilogues) {
      for (int options = static_cast<int>(dtype) % 3; options < 64; options += 3) {  // every pair of options meets
        const auto has = [&](int bit) { return (options >> bit & 1) != 0; };
        Case x{.m = has(5) ? 13 : 101, .n = 37, .k = 10, .dtype = dtype, .c_dtype = has(0) ? accumulator_of(dtype) : dtype};
        x.trans_b = has(3);
        x.trans_a = is_backward(epilogue) && has(4);
        x.accumulate = has(1);
        x.bias = has(2);
        x.column_sum = has(3);
        x.accumulate_sum = has(4);
        x.sum_dtype = has(5) ? accumulator_of(dtype) : dtype;
        x.epilogue = epilogue;
        x.preact = is_backward(epilogue) || (epilogue != Epilogue::none && has(5));
        x.padding = has(2) ? 5 : 0;
        check_case(x);
      }
    }
  }
}

// z is symmetric: by one half of it and a copy of that, or whole where something else reads or changes it.
TEST_CASE("matmul: a matrix times itself transposed, in every dtype and with every option") {
  const auto gram = [](int64_t m, int64_t k, DType dtype, DType c_dtype, bool trans_a) {
    return Case{.m = m, .n = m, .k = k, .dtype = dtype, .c_dtype = c_dtype, .trans_a = trans_a, .trans_b = !trans_a, .gram = true};
  };
  constexpr std::array<std::array<int64_t, 2>, 9> kShapes{{{0, 3}, {1, 1}, {1, 40}, {5, 0}, {33, 7}, {97, 700}, {96, 1100}, {200, 64}, {325, 20}}};
  for (const auto& [m, k] : kShapes) {
    if (kCuda && m * k > 5000) continue;  // its candidates do not tell them from other products
    for (DType dtype : kFloating) {
      for (bool trans_a : {false, true}) {
        Case x = gram(m, k, dtype, accumulator_of(dtype), trans_a);
        CHECK(is_gram(Operands(x).args));
        check_case(x);
        x.padding = 3;
        x.c_dtype = dtype;
        check_case(x);
        x.accumulate = true;
        check_case(x);
      }
    }
  }
  for (DType dtype : kFloating) {
    Case x = gram(130, 40, dtype, dtype, false);
    x.bias = x.column_sum = x.preact = true;
    x.sum_dtype = dtype;
    x.epilogue = Epilogue::relu2;
    check_case(x);
  }
  Operands part(gram(8, 8, DType::f32, DType::f32, false));  // other rows, and another stride, of the same memory
  part.args.b.shape[0] = 4;
  CHECK_FALSE(is_gram(part.args));
  part.args.b = part.args.a;
  part.args.b.stride[0] = 4;
  CHECK_FALSE(is_gram(part.args));
  part.args.b = part.args.a;
  part.args.trans_b = false;
  CHECK_FALSE(is_gram(part.args));
}

// Results that start at multiples of 16 bytes: columns end anywhere in a panel, and within a pair of them.
TEST_CASE("matmul: a bias and nothing else") {
  for (int64_t n : {1, 2, 3, 8, 62, 63, 64, 65, 66, 129, 200, 257}) {
    for (bool trans_b : {false, true})
      check_case({.m = 70, .n = n, .k = 9, .dtype = DType::bf16, .c_dtype = DType::bf16, .trans_b = trans_b, .bias = true, .aligned = true});
  }
}

TEST_CASE("matmul: several tiles with every epilogue") {
  for (Epilogue epilogue : kEpilogues) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      Case x{.m = 301, .n = 203, .k = 20, .dtype = dtype, .c_dtype = dtype, .trans_b = true, .bias = true, .column_sum = true, .epilogue = epilogue};
      x.preact = epilogue != Epilogue::none;
      check_case(x);
    }
  }
  check_case({.m = 40, .n = 1100, .k = 12, .trans_a = true, .accumulate = true, .column_sum = true, .accumulate_sum = true});
  for (DType dtype : kFloating) {  // long in k, whole panels of columns: the weight gradient
    for (bool accumulate : {false, true}) {
      for (int64_t m : {98, 128}) {
        check_case({.m = m,
                    .n = m == 98 ? 64 : 224,
                    .k = 1300,
                    .dtype = dtype,
                    .c_dtype = accumulator_of(dtype),
                    .trans_a = true,
                    .accumulate = accumulate,
                    .padding = 3});
      }
    }
  }
  check_case({.m = 25, .n = 24, .k = 2100, .dtype = DType::bf16, .trans_a = true, .accumulate = true});
  // More tiles of rows than one group of those that run side by side.
  check_case({.m = 1100, .n = 40, .k = 12, .dtype = DType::bf16, .c_dtype = DType::bf16, .trans_b = true, .aligned = true});
}

TEST_CASE("matmul: tiles of every size with every epilogue") {
  test::on_few_multiprocessors([] {
    for (const int64_t m : {130, 100}) {
      for (size_t i = 0; i < kEpilogues.size(); ++i) {
        Case x{.m = m, .n = 500, .k = 72, .dtype = DType::bf16, .c_dtype = i % 2 ? DType::f32 : DType::bf16, .aligned = true};
        x.trans_a = i == 4;
        x.trans_b = i % 3 == 0;
        x.bias = x.column_sum = i % 2 == 0;
        x.accumulate = i == 1 || i == 4;
        x.preact = kEpilogues[i] != Epilogue::none;
        x.epilogue = kEpilogues[i];
        check_case(x);
      }
    }
  });
}

// Few tiles and many products: a GPU cuts them along K, and finishes what it added up.
TEST_CASE("matmul: long in K with every epilogue and transposition") {
  for (DType dtype : {DType::f32, DType::bf16}) {
    for (int i = 0; i < 5; ++i) {
      const Epilogue epilogue = kEpilogues[static_cast<size_t>(i)];
      Case x{.m = 1 + 33 * i, .n = 75 - 7 * i, .k = 1100, .dtype = dtype, .c_dtype = i % 2 ? DType::f32 : dtype};
      x.trans_a = i % 2;
      x.trans_b = i / 2 % 2;
      x.bias = x.column_sum = true;
      x.preact = epilogue != Epilogue::none;
      x.epilogue = epilogue;
      x.accumulate = x.accumulate_sum = i % 3 == 1;
      x.sum_dtype = i % 2 ? dtype : DType::f32;
      check_case(x);
      x.padding = 3;
      check_case(x);
    }
  }
}

TEST_CASE("matmul: outliers, NaN and Inf are neither lost nor spread") {
  for (const auto& candidate : candidates()) {
    for (DType dtype : {DType::f32, DType::bf16}) {
      Operands o({.m = 100, .n = 70, .k = 50, .dtype = dtype, .trans_b = true, .aligned = dtype == DType::bf16});
      o.a.put(3 * 50 + 7, 1e30);
      o.a.put(5 * 50 + 1, std::numeric_limits<double>::quiet_NaN());
      o.b.put(11 * 50 + 2, std::numeric_limits<double>::infinity());
      const auto want = oracle::matmul(o.args);
      INFO(candidate.name << " " << name_of(dtype));
      if (o.run(candidate)) CHECK_CLOSE(o.c.view(), want.c, want.c_magnitude, Bound{DType::f32, 60});
    }
  }
  check_case({.m = 30, .n = 40, .k = 50, .epilogue = Epilogue::gelu, .spread = 1e4});
}

TEST_CASE("matmul: the bits do not depend on the number of threads") {
  const std::array cases{
      Case{.m = 400, .n = 300, .k = 100, .trans_b = true, .bias = true, .preact = true, .column_sum = true, .epilogue = Epilogue::gelu},
      Case{.m = 384, .n = 192, .k = 100, .trans_a = true, .accumulate = true},
      Case{.m = 200, .n = 112, .k = 1300, .trans_a = true},
      Case{.m = 192, .n = 96, .k = 1300, .dtype = DType::bf16, .c_dtype = DType::f32, .trans_a = true},
      Case{.m = 400, .n = 112, .k = 321},  // one more than a slice of K holds
      Case{.m = 400, .n = 112, .k = 641, .trans_a = true},
      Case{.m = 600, .n = 65, .k = 128, .dtype = DType::bf16, .c_dtype = DType::bf16, .trans_b = true, .column_sum = true, .aligned = kCuda},
      Case{.m = 1, .n = 2000, .k = 520, .trans_b = true},
      Case{.m = 65, .n = 200, .k = 300, .dtype = DType::bf16, .trans_a = true},
      Case{.m = 200, .n = 72, .k = 1300, .dtype = DType::bf16, .trans_a = true, .accumulate = true, .column_sum = true, .aligned = true},
      Case{.m = 200, .n = 200, .k = 100, .dtype = DType::f64, .c_dtype = DType::f64},
      Case{.m = 325, .n = 325, .k = 700, .trans_b = true, .gram = true},
      Case{.m = 320, .n = 320, .k = 700, .trans_a = true, .gram = true},
      Case{.m = 325, .n = 325, .k = 700, .dtype = DType::bf16, .c_dtype = DType::bf16, .trans_b = true, .gram = true}};
  for (const auto& x : cases) {
    if ((kCuda && x.gram) || std::find(std::begin(kFloating), std::end(kFloating), x.dtype) == std::end(kFloating)) continue;
    for (const auto& candidate : candidates()) {
      INFO(candidate.name << ": " << x);
      Operands one(x);
      bool taken = false;
      test::in_another_order(0, [&] { taken = one.run(candidate); });
      for (int n : {1, 2, 4}) {
        if (!taken) break;
        Operands many(x);
        test::in_another_order(n, [&] { many.run(candidate); });
        CHECK(many.same_results(one));
      }
    }
  }
}

TEST_CASE("matmul: arguments that contradict the contract give one error naming the shapes") {
  using Catch::Matchers::Contains;
  const auto refused = [](Case x, auto&& change, const std::string& text) {
    Operands o(x);
    change(o);
    CHECK_THROWS_WITH(check(o.args), Contains(text));
  };
  const Case plain{.m = 4, .n = 6, .k = 8};
  const Case full{.m = 4, .n = 6, .k = 8, .bias = true, .preact = true, .column_sum = true, .epilogue = Epilogue::gelu};
  CHECK_NOTHROW(check(Operands(full).args));
  refused(
      plain, [](Operands& o) { o.args.trans_b = true; }, "[matmul] inner dimensions differ: a f32 (4, 8), b f32 (8, 6) transposed");
  refused(
      plain, [](Operands& o) { o.args.c.to.shape[1] = 5; }, "c must be (4, 6), is f32 (4, 5)");
  refused(
      plain, [](Operands& o) { o.args.b.dtype = DType::bf16; }, "one floating dtype: a f32 (4, 8), b bf16 (8, 6)");
  refused(
      plain, [](Operands& o) { o.args.c.to.dtype = DType::bf16; }, "c must be f32 or f32, is bf16");
  refused(
      plain, [](Operands& o) { o.args.a.rank = 1; }, "must be matrices");
  refused(
      plain, [](Operands& o) { o.args.a.stride[1] = 2; }, "last stride of a is not 1");
  refused(
      plain, [](Operands& o) { o.args.a.stride[0] = 7; }, "rows of a overlap");
  refused(
      plain, [](Operands& o) { o.args.c.to.data = o.args.a.data; }, "c overlaps a");
  refused(
      full, [](Operands& o) { o.args.bias.shape[0] = 5; }, "bias must be f32 (6), is f32 (5)");
  refused(
      full, [](Operands& o) { o.args.epilogue = Epilogue::none; }, "no activation");
  refused(
      full, [](Operands& o) { o.args.preact.dtype = DType::f64; }, "preact must be f32, is f64");
  refused(
      full, [](Operands& o) { o.args.column_sum.to.shape[0] = 7; }, "column_sum must be f32 or f32 (6), is f32 (7)");
  refused(
      plain, [](Operands& o) { o.args.epilogue = Epilogue::relu2_backward; }, "needs preact");

  // Column ranges of one packed buffer do not overlap.
  Operands o(plain);
  Buffer packed(DType::f32, {4, 14});
  o.args.a = packed.view();
  o.args.a.shape[1] = 8;
  o.args.c.to = packed.view();
  o.args.c.to.shape[1] = 6;
  o.args.c.to.data += 8 * 4;
  CHECK_NOTHROW(check(o.args));
  o.args.c.to.data -= 4;
  CHECK_THROWS_WITH(check(o.args), Contains("c overlaps a"));

  for (const auto& candidate : candidates()) {
    Operands short_scratch(Case{.m = 40, .n = 6, .k = 8, .column_sum = true});
    if (candidate.refuses && candidate.refuses(short_scratch.args)) continue;
    CHECK_THROWS_WITH(candidate.run(short_scratch.args, Stream{}), Contains("scratch too small"));
  }
}

}  // namespace heddle::kernels
