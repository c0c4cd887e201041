// Attention forward and backward against the float64 oracle: ragged lengths, head sizes, GQA, windows, documents, a KV cache, packed
// buffers, dtypes, thread counts, refusals.
#include "kernels/api/attention.h"

#include <omp.h>

#include <limits>

#include "kernels/cpu/register_internal.h"
#include "tests/kernels/kernel_case.h"
#include "tests/oracles/attention.h"
#include "tests/support/buffer.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;

struct Case {
  int64_t b = 1, t = 1, s = 0, h = 1, kv = 1, d = 8;  // s: 0 means t
  int64_t window = 0;
  DType dtype = DType::f32;
  bool documents = false, lse = true;
  double spread = 1;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << name_of(c.dtype) << " B " << c.b << " T " << c.t << " S " << (c.s ? c.s : c.t) << " H " << c.h << "/" << c.kv << " D " << c.d
             << " window " << c.window << " documents " << c.documents << " spread " << c.spread;
}

// q, k, v (and their gradients) are views of one packed buffer, as a model makes them; with a KV cache q has its own.
struct Packed {
  Buffer buffer, queries;
  View q, k, v;

  Packed() = default;
  Packed(const Case& x) {
    const int64_t s = x.s ? x.s : x.t, kv_width = x.kv * x.d, q_width = x.h * x.d;
    buffer = Buffer(x.dtype, {x.b, s, q_width + 2 * kv_width});
    queries = Buffer(x.dtype, {x.b, x.t, q_width}, {.padding = 5});
    const auto heads = [&](const Buffer& from, int64_t first, int64_t length, int64_t count) {
      View view = from.view();
      view.data += first * size_of(x.dtype);
      view.rank = 4;
      view.shape = {x.b, length, count, x.d};
      view.stride = {view.stride[0], view.stride[1], x.d, 1};
      return view;
    };
    q = s == x.t ? heads(buffer, 0, x.t, x.h) : heads(queries, 0, x.t, x.h);
    k = heads(buffer, q_width, s, x.kv);
    v = heads(buffer, q_width + kv_width, s, x.kv);
  }
  Packed(const Packed&) = delete;
  Packed& operator=(Packed&&) = default;
};

struct Attention {
  Packed in, grad;
  Buffer out, lse, d_out, start;
  std::vector<std::byte> scratch;
  AttentionForwardArgs forward;
  AttentionBackwardArgs backward;

  explicit Attention(const Case& x) : in(x), grad(x) {
    in.buffer.normal(1, 0, x.spread);
    in.queries.normal(2, 0, x.spread);
    out = Buffer(x.dtype, {x.b, x.t, x.h, x.d}, {.padding = 3});
    lse = Buffer(accumulator_of(x.dtype), {x.b, x.h, x.t}, {.padding = 2});
    d_out = Buffer(x.dtype, {x.b, x.t, x.h, x.d});
    d_out.normal(3);
    start = Buffer(DType::i32, {x.b, x.t}, {.padding = 1});
    // Documents of growing length; sequence b begins with another cut.
    start.fill([&](int64_t i) {
      const int64_t b = i / x.t, t = i % x.t;
      int64_t first = 0, length = 3 + 2 * b;
      while (first + length <= t) {
        first += length;
        length = length * 3 / 2 + 1;
      }
      return static_cast<double>(first);
    });
    forward = {
        .q = in.q, .k = in.k, .v = in.v, .out = out.view(), .scale = static_cast<float>(1 / std::sqrt(static_cast<double>(x.d))), .window = x.window};
    if (x.lse) forward.lse = lse.view();
    if (x.documents) forward.document_start = start.view();
  }
  Attention(const Attention&) = delete;

  void run_forward() {
    cpu::register_cpu_attention();
    const auto& kernel = attention_forward.choose(DeviceType::cpu, forward);
    scratch.assign(kernel.scratch ? kernel.scratch(forward) : 0, std::byte{0xFF});
    forward.scratch = scratch;
    kernel.run(forward, Stream{});
  }
  void prepare_backward() {
    backward = {
        .q = in.q, .k = in.k, .v = in.v, .out = out.view(), .lse = lse.view(), .d_out = d_out.view(), .dq = grad.q, .dk = grad.k, .dv = grad.v};
    backward.document_start = forward.document_start;
    backward.scale = forward.scale;
    backward.window = forward.window;
    const auto& kernel = attention_backward.choose(DeviceType::cpu, backward);
    scratch.assign(kernel.scratch ? kernel.scratch(backward) : 0, std::byte{0xFF});
    backward.scratch = scratch;
  }
  void run_backward() {
    prepare_backward();
    attention_backward.choose(DeviceType::cpu, backward).run(backward, Stream{});
  }
};

void check_case(const Case& x) {
  INFO(x);
  Attention a(x);
  const bool backward = x.s == 0 && x.lse;
  const auto& f = a.forward;
  const auto want = oracle::attention(f.q, f.k, f.v, f.document_start, f.scale, f.window, backward ? a.d_out.view() : View{});
  a.run_forward();

  // The error of a score, gamma_{D + 3} sum |q| |k|, is the relative error of its exponential. Then come S sums and products, one rescaling
  // per tile (bounded by S again) and the division; exp itself is within 2 ulp and enters once for a term and once for each rescaling.
  const int64_t s = x.s ? x.s : x.t;
  const double score_terms = static_cast<double>(x.d + 3) * std::max(want.score, 1.0);
  const double terms = 2 * score_terms + 3 * static_cast<double>(s) + 10;
  CHECK_CLOSE(a.out.view(), want.out.data, want.out_magnitude.data, Bound{x.dtype, terms});
  CHECK(a.out.guards_intact());
  CHECK(a.lse.guards_intact());
  if (x.lse) {
    std::vector<double> size(want.lse.size());
    for (size_t i = 0; i < size.size(); ++i) size[i] = std::abs(want.lse[i]) + 1;
    CHECK_CLOSE(a.lse.view(), want.lse, size, Bound{accumulator_of(x.dtype), terms});
  }
  if (!backward) return;

  a.run_backward();
  // Backward reads the stored out in delta: its rounding to the dtype acts there, relative to sum |d_out| |out| <= the magnitude used here.
  const double stored = test::unit_roundoff(x.dtype) / test::unit_roundoff(accumulator_of(x.dtype));
  const double grad_terms = terms + 2 * static_cast<double>(x.d) + static_cast<double>(x.t * x.h) + 10;
  const double delta_terms = grad_terms + (stored > 1 ? stored : 0);
  CHECK_CLOSE(a.grad.q, want.dq.data, want.dq_magnitude.data, Bound{x.dtype, delta_terms});
  CHECK_CLOSE(a.grad.k, want.dk.data, want.dk_magnitude.data, Bound{x.dtype, delta_terms});
  CHECK_CLOSE(a.grad.v, want.dv.data, want.dv_magnitude.data, Bound{x.dtype, grad_terms});
  CHECK(a.grad.buffer.guards_intact());
}

constexpr std::array kDtypes{DType::f32, DType::bf16, DType::f64};

}  // namespace

TEST_CASE("attention: ragged lengths and head sizes in every dtype") {
  for (DType dtype : kDtypes) {
    for (int64_t d : {1, 7, 16, 20, 64, 128}) {
      for (int64_t t : {1, 2, 4, 5, 17, 64, 65}) check_case({.b = 1, .t = t, .h = 2, .kv = 2, .d = d, .dtype = dtype});
    }
    check_case({.b = 1, .t = 131, .h = 2, .kv = 2, .d = 32, .dtype = dtype});
    check_case({.b = 2, .t = 70, .h = 1, .kv = 1, .d = 256, .dtype = dtype});
    check_case({.b = 3, .t = 33, .h = 3, .kv = 3, .d = 96, .dtype = dtype, .lse = false});
  }
}

TEST_CASE("attention: grouped queries, windows and documents, alone and together") {
  size_t next = 0;
  for (int64_t kv : {1, 2, 4}) {
    for (int64_t window : {0, 1, 3, 40, 64, 1000}) {
      for (bool documents : {false, true}) {
        check_case({.b = 2, .t = 150, .h = 4, .kv = kv, .d = 16, .window = window, .dtype = kDtypes[next++ % 3], .documents = documents});
        check_case({.b = 2, .t = 70, .h = 4, .kv = kv, .d = 8, .window = window, .dtype = kDtypes[next++ % 3], .documents = documents});
        ++next;
      }
    }
  }
}

TEST_CASE("attention: queries at the end of a KV cache") {
  size_t next = 0;
  for (int64_t t : {1, 3, 4, 5, 30, 64, 100}) {
    for (int64_t s : {t + 1, int64_t{107}, int64_t{203}}) {
      for (int64_t window : {0, 1, 50}) {
        check_case({.b = 2, .t = t, .s = s, .h = 4, .kv = 2, .d = 24, .window = window, .dtype = kDtypes[next++ % 3]});
      }
      ++next;
    }
  }
}

TEST_CASE("attention: a cached key gives what the full sequence gives") {
  Attention full({.b = 1, .t = 90, .h = 2, .kv = 1, .d = 32});
  full.run_forward();
  Attention last({.b = 1, .t = 90, .h = 2, .kv = 1, .d = 32});
  Buffer one(DType::f32, {1, 1, 2, 32});
  last.forward.q.shape[1] = 1;
  last.forward.q.data += 89 * last.forward.q.step(1) * 4;
  last.forward.out = one.view();
  last.forward.lse = View{};
  last.run_forward();
  View row = full.out.view();
  row.shape[1] = 1;
  row.data += 89 * row.step(1) * 4;
  const auto want = test::values(row);
  CHECK_CLOSE(one.view(), want, std::vector<double>(want.size(), 1e-5));
}

TEST_CASE("attention: large scores neither overflow nor lose the answer; NaN stays in its row") {
  check_case({.b = 1, .t = 100, .h = 2, .kv = 2, .d = 32, .spread = 30});
  check_case({.b = 1, .t = 3, .h = 2, .kv = 2, .d = 32, .spread = 30});
  for (int64_t t : {4, 100}) {
    Attention a({.b = 1, .t = t, .h = 2, .kv = 2, .d = 8});
    a.in.buffer.put(1 * 48 + 3, std::numeric_limits<double>::quiet_NaN());  // q of t = 1, head 0
    a.run_forward();
    for (int64_t row = 0; row < t * 2; ++row) {
      for (int64_t c = 0; c < 8; ++c) CHECK(std::isnan(test::element(a.out.view(), row * 8 + c)) == (row == 2));
    }
  }
}

TEST_CASE("attention: the bits do not depend on the number of threads, nor on the run") {
  const int threads = omp_get_max_threads();
  for (const Case& x :
       {Case{.b = 1, .t = 200, .h = 1, .kv = 1, .d = 64}, Case{.b = 2, .t = 150, .h = 4, .kv = 2, .d = 32, .dtype = DType::bf16, .documents = true},
        Case{.b = 1, .t = 2, .s = 1000, .h = 8, .kv = 2, .d = 64}}) {
    INFO(x);
    omp_set_num_threads(1);
    Attention one(x);
    one.run_forward();
    if (!x.s) one.run_backward();
    for (int n : {2, 3, 5, 1}) {
      omp_set_num_threads(n);
      Attention many(x);
      many.run_forward();
      if (!x.s) many.run_backward();
      CHECK(many.out == one.out);
      CHECK(many.lse == one.lse);
      CHECK(many.grad.buffer == one.grad.buffer);
    }
  }
  omp_set_num_threads(threads);
}

TEST_CASE("attention: arguments that contradict the contract give one error naming the shapes") {
  using Catch::Matchers::Contains;
  const auto refused = [](const std::function<void(AttentionForwardArgs&)>& change, const std::string& text) {
    Attention a({.b = 2, .t = 6, .h = 4, .kv = 2, .d = 8, .documents = true});
    change(a.forward);
    CHECK_THROWS_WITH(check(a.forward), Contains(text));
  };
  using Args = AttentionForwardArgs;
  refused([](Args& a) { a.k.shape[3] = 7; }, "[attention_forward] batch or head size differs: q f32 (2, 6, 4, 8), k f32 (2, 6, 2, 7)");
  refused([](Args& a) { a.v.shape[1] = 5; }, "k and v must have one shape");
  refused([](Args& a) { a.q.shape[2] = 3; }, "query heads must be a multiple of KV heads: q f32 (2, 6, 3, 8), k f32 (2, 6, 2, 8)");
  refused([](Args& a) { a.k.shape[1] = a.v.shape[1] = 5; }, "fewer keys than queries");
  refused([](Args& a) { a.k.dtype = DType::bf16; }, "one floating dtype");
  refused([](Args& a) { a.out.shape[1] = 5; }, "out must be like q: f32 (2, 5, 4, 8) and f32 (2, 6, 4, 8)");
  refused([](Args& a) { a.lse.shape[1] = 2; }, "lse must be (B, H, T), is f32 (2, 2, 6)");
  refused([](Args& a) { a.lse.dtype = DType::f64; }, "lse must be f32");
  refused([](Args& a) { a.document_start.shape[1] = 5; }, "document_start must be i32 (B, T), is i32 (2, 5)");
  refused([](Args& a) { a.k.shape[1] = a.v.shape[1] = 9; }, "document_start needs as many keys as queries");
  refused([](Args& a) { a.v.stride[3] = 2; }, "the last stride of v is not 1");

  cpu::register_cpu_attention();
  Attention wide({.b = 1, .t = 2, .h = 1, .kv = 1, .d = 300});
  CHECK_THROWS_WITH(attention_forward.choose(DeviceType::cpu, wide.forward), Contains("head size 300 is above 256"));

  Attention a({.b = 2, .t = 6, .h = 4, .kv = 2, .d = 8, .documents = true});
  a.start.put(6 + 2, 3);
  CHECK(test::contains(test::error_of(attention_forward, a.forward), "document_start[b = 1][t = 2] is 3, not in [0, 2]"));
  a.start.put(6 + 2, 0);
  a.run_forward();
  a.prepare_backward();
  const auto backward_refused = [&](const std::function<void(AttentionBackwardArgs&)>& change, const std::string& text) {
    AttentionBackwardArgs args = a.backward;
    change(args);
    CHECK_THROWS_WITH(attention_backward.candidates(DeviceType::cpu)[0].run(args, Stream{}), Contains(text));
  };
  backward_refused([](auto& args) { args.dk.shape[2] = 4; }, "dk must be like k");
  backward_refused([](auto& args) { args.d_out.dtype = DType::f64; }, "d_out must be like q");
  backward_refused([](auto& args) { args.lse = View{}; }, "lse is absent");
  backward_refused([](auto& args) { args.scratch = args.scratch.first(8); }, "scratch too small: 8 of");
}

}  // namespace heddle::kernels
