// Every candidate of swiglu_matmul against float64: what it saves and what comes of it.
#include "kernels/api/swiglu_matmul.h"

#include <array>
#include <cmath>

#include "kernels/api/swiglu_matmul_rules.h"
#include "tests/kernels/kernel_case.h"
#include "tests/oracles/matmul.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;

struct Case {
  int64_t m = 1, f = 1, k = 1;
  DType dtype = DType::f32;
  bool both = true;
  bool aligned = false;  // rows at multiples of 16 bytes
  int64_t padding = 0;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << "M " << c.m << " F " << c.f << " K " << c.k << ' ' << name_of(c.dtype) << (c.both ? " both" : "") << (c.aligned ? " aligned" : "")
             << " padding " << c.padding;
}

struct Operands {
  Buffer x, w, both, out;
  SwigluMatmulArgs args;

  explicit Operands(const Case& c) {
    const auto made = [&](int64_t rows, int64_t columns) {
      if (c.aligned) return Buffer(c.dtype, {rows, columns}, {.padding = (8 - columns % 8) % 8 + (c.padding ? 8 : 0)});
      return Buffer(c.dtype, {rows, columns}, {c.padding, c.padding});
    };
    x = made(c.m, c.k);
    w = made(2 * c.f, c.k);
    both = made(c.m, 2 * c.f);
    out = made(c.m, c.f);
    x.normal(1);
    w.normal(2, 0, 2 / std::sqrt(static_cast<double>(std::max<int64_t>(c.k, 1))));
    args = {.x = x.view(), .w = w.view(), .out = out.view()};
    if (c.both) args.both = both.view();
  }
  Operands(const Operands&) = delete;

  // False: the candidate refuses.
  bool run(const Candidate<SwigluMatmulArgs>& candidate) const {
    if (candidate.refuses(args)) return false;
    const struct Forced {
      explicit Forced(std::string_view name) { swiglu_matmul.force(name); }
      ~Forced() { swiglu_matmul.force(""); }
    } forced(candidate.name);
    test::run(swiglu_matmul, args);
    return true;
  }
};

const std::vector<Candidate<SwigluMatmulArgs>>& candidates() {
  test::register_kernels();
  return swiglu_matmul.candidates(test::kDevice);
}

// gate and up are off by their product's roundings and may have been rounded; |silu'| <= 1.1, and silu's own arithmetic is below nine roundings.
std::vector<double> bounds_of_out(const Case& c, const oracle::MatmulResult& both, std::vector<double>& want) {
  const Bound product{c.dtype, static_cast<double>(c.k) + 2}, own{c.dtype, 12};
  std::vector<double> bounds;
  for (int64_t i = 0; i < c.m * c.f; ++i) {
    const auto gate_at = static_cast<size_t>(i / c.f * 2 * c.f + i % c.f), up_at = gate_at + static_cast<size_t>(c.f);
    const double gate = both.c[gate_at], up = both.c[up_at], silu = gate / (1 + std::exp(-gate));
    const double gate_off = product(gate, both.c_magnitude[gate_at]), up_off = product(up, both.c_magnitude[up_at]);
    const double off = 1.1 * gate_off * (std::abs(up) + up_off) + std::abs(silu) * up_off;
    want.push_back(silu * up);
    bounds.push_back(off + own(std::abs(silu * up) + off, std::abs(gate * up) + off));
  }
  return bounds;
}

void check_case(const Case& c) {
  Operands reference(c);
  const View both = reference.both.view();
  const auto product = oracle::matmul({.a = reference.x.view(), .b = reference.w.view(), .trans_b = true, .c = {both, false}});
  std::vector<double> want;
  const std::vector<double> bounds = bounds_of_out(c, product, want);
  int ran = 0;
  for (const auto& candidate : candidates()) {
    const Operands o(c);
    INFO(candidate.name << ": " << c);
    if (!o.run(candidate)) continue;
    ++ran;
    CHECK(test::difference(o.out.view(), want, bounds) == "");
    if (c.both) CHECK_CLOSE(o.both.view(), product.c, product.c_magnitude, Bound{c.dtype, static_cast<double>(c.k) + 2});
    CHECK(o.out.guards_intact());
    CHECK(o.both.guards_intact());
    if (c.both) {  // the same bits without
      Operands alone({.m = c.m, .f = c.f, .k = c.k, .dtype = c.dtype, .both = false, .aligned = c.aligned, .padding = c.padding});
      CHECK(alone.run(candidate));
      CHECK(alone.out == o.out);
    }
  }
  CHECK(ran > 0);
}

}  // namespace

TEST_CASE("swiglu_matmul: shapes, ragged and of size 0 and 1, in every dtype") {
  constexpr std::array<std::array<int64_t, 3>, 14> kShapes{{{1, 1, 1},
                                                            {3, 7, 5},
                                                            {5, 1, 9},
                                                            {64, 64, 64},
                                                            {70, 72, 100},
                                                            {130, 136, 72},
                                                            {200, 40, 200},
                                                            {2, 8, 64},
                                                            {129, 128, 16},
                                                            {33, 264, 40},
                                                            {300, 24, 8},
                                                            {0, 4, 3},
                                                            {4, 0, 3},
                                                            {4, 5, 0}}};
  for (const auto& [m, f, k] : kShapes) {
    for (DType dtype : test::kFloating) {
      Case c{.m = m, .f = f, .k = k, .dtype = dtype};
      check_case(c);
      c.padding = 3;
      check_case(c);
      c.aligned = true;
      check_case(c);
      c.padding = 0;
      check_case(c);
    }
  }
}

TEST_CASE("swiglu_matmul: tiles of every size") {
  test::on_few_multiprocessors([] {
    for (const auto& [m, f] : {std::array<int64_t, 2>{130, 248}, {100, 248}, {257, 256}, {300, 128}})
      check_case({.m = m, .f = f, .k = 72, .dtype = DType::bf16, .aligned = true});
  });
}

TEST_CASE("swiglu_matmul: the bits do not depend on the number of threads") {
  for (const Case& c : {Case{.m = 200, .f = 72, .k = 700, .dtype = DType::bf16, .aligned = true}, Case{.m = 65, .f = 33, .k = 128}}) {
    for (const auto& candidate : candidates()) {
      if (candidate.refuses(Operands(c).args)) continue;
      INFO(candidate.name << ": " << c);
      CHECK(test::same_on_any_thread_count([&] {
        Operands o(c);
        o.run(candidate);
        return std::pair{o.both, o.out};
      }));
    }
  }
}

TEST_CASE("swiglu_matmul: arguments that contradict the contract are refused by every candidate") {
  const auto refused = [](auto&& change, const std::string& text) {
    Operands o({.m = 4, .f = 8, .k = 16, .dtype = DType::bf16, .aligned = true});
    change(o.args);
    INFO(test::error_of(swiglu_matmul, o.args));
    CHECK(test::contains(test::error_of(swiglu_matmul, o.args), text));
  };
  CHECK(candidates().size() > 0);
  refused([](auto& args) { args.x.shape[1] = 15; }, "differ in K");
  refused([](auto& args) { args.w.shape[0] = 15; }, "must be (M, F)");
  refused([](auto& args) { args.out.shape[0] = 3; }, "must be (M, F)");
  refused([](auto& args) { args.both.shape[1] = 15; }, "must be (M, 2F)");
  refused([](auto& args) { args.both.dtype = DType::f32; }, "dtypes differ");
  refused([](auto& args) { args.w.dtype = DType::f32; }, "dtypes differ");
  refused([](auto& args) { args.x.rank = 3, args.x.shape[2] = args.x.stride[2] = 1; }, "must be matrices");
}

}  // namespace heddle::kernels
