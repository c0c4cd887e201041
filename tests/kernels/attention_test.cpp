// Attention forward and backward against the float64 oracle, by every candidate that takes a case: ragged lengths, head sizes, GQA, windows,
// documents, a KV cache, packed buffers, dtypes, thread counts, refusals.
#include "kernels/api/attention.h"

#include <limits>
#include <string>

#include "tests/kernels/kernel_case.h"
#include "tests/oracles/attention.h"
#include "tests/support/buffer.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"

namespace heddle::kernels {
namespace {

using test::Bound;
using test::Buffer;
using test::kDevice;
using test::kFloating;

// scattered: starts that do not rise with the token. odd_one: of each 64 tokens one, another in each sequence, sees but itself, the others all;
// odd_many: the other way round.
enum class Documents { none, growing, scattered, odd_one, odd_many };

struct Case {
  int64_t b = 1, t = 1, s = 0, h = 1, kv = 1, d = 8;  // s: 0 means t
  int64_t window = 0;
  DType dtype = DType::f32;
  Documents documents = Documents::none;
  bool lse = true, aligned = false;  // aligned: all rows start at multiples of 16 bytes
  bool chosen_only = false;          // by the first candidate alone
  double spread = 1;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << name_of(c.dtype) << " B " << c.b << " T " << c.t << " S " << (c.s ? c.s : c.t) << " H " << c.h << "/" << c.kv << " D " << c.d
             << " window " << c.window << " documents " << static_cast<int>(c.documents) << " spread " << c.spread;
}

// q, k, v (and their gradients) are views of one packed buffer, as a model makes them; with a KV cache q has its own.
struct Packed {
  Buffer buffer, queries;
  View q, k, v;

  Packed() = default;
  Packed(const Case& x) {
    const int64_t s = x.s ? x.s : x.t, kv_width = x.kv * x.d, q_width = x.h * x.d;
    buffer = Buffer(x.dtype, {x.b, s, q_width + 2 * kv_width});
    queries = Buffer(x.dtype, {x.b, x.t, q_width}, {.padding = x.aligned ? 8 : 5});
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
  AttentionForwardArgs forward;
  AttentionBackwardArgs backward;

  explicit Attention(const Case& x) : in(x), grad(x) {
    in.buffer.normal(1, 0, x.spread);
    in.queries.normal(2, 0, x.spread);
    out = Buffer(x.dtype, {x.b, x.t, x.h, x.d}, {.padding = x.aligned ? 8 : 3});
    lse = Buffer(accumulator_of(x.dtype), {x.b, x.h, x.t}, {.padding = 2});
    d_out = Buffer(x.dtype, {x.b, x.t, x.h, x.d});
    d_out.normal(3);
    start = Buffer(DType::i32, {x.b, x.t}, {.padding = 1});
    // Documents of growing length; sequence b begins with another cut.
    start.fill([&](int64_t i) {
      const int64_t b = i / x.t, t = i % x.t;
      if (x.documents == Documents::scattered) return static_cast<double>((i * 7919 + 13 * b) % (t + 1));
      if (x.documents == Documents::odd_one || x.documents == Documents::odd_many)
        return (t % 64 == b % 64) == (x.documents == Documents::odd_one) ? static_cast<double>(t) : 0.0;
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
    if (x.documents != Documents::none) forward.document_start = start.view();
    backward = {
        .q = in.q, .k = in.k, .v = in.v, .out = out.view(), .lse = lse.view(), .d_out = d_out.view(), .dq = grad.q, .dk = grad.k, .dv = grad.v};
    backward.document_start = forward.document_start;
    backward.scale = forward.scale;
    backward.window = forward.window;
  }
  Attention(const Attention&) = delete;

  void run_forward() { test::run(attention_forward, forward); }
  void run_backward() { test::run(attention_backward, backward); }
};

// run(candidate's name) for the first `most` candidates of this device that take the arguments, or all, while each is the only choice.
template <class Args, class Run>
void by_candidates(Kernel<Args>& kernel, const Args& args, int most, const Run& run) {
  test::register_kernels();
  for (const Candidate<Args>& candidate : kernel.candidates(kDevice)) {
    if (candidate.refuses && candidate.refuses(args)) continue;
    INFO(kernel.op() << " by " << candidate.name);
    kernel.force(candidate.name);
    run(candidate.name);
    kernel.force("");
    if (--most == 0) return;
  }
}
template <class Args, class Run>
void by_every_candidate(Kernel<Args>& kernel, const Args& args, const Run& run) {
  by_candidates(kernel, args, 99, run);
}

void check_case(const Case& x) {
  INFO(x);
  Attention a(x);
  const bool backward = x.s == 0 && x.lse;
  const auto& f = a.forward;
  const auto want = oracle::attention(f.q, f.k, f.v, f.document_start, f.scale, f.window, backward ? a.d_out.view() : View{});

  // Roundings to the dtype, counted in those of the accumulator: of what is stored, and on tensor cores of the probabilities or their gradients,
  // which meet the other operand in bf16.
  const double ratio = test::unit_roundoff(x.dtype) / test::unit_roundoff(accumulator_of(x.dtype)), stored = ratio > 1 ? ratio : 0;
  const auto operands = [&](std::string_view candidate) { return candidate == "flash2_sm80" ? stored : 0; };
  // The error of a score, gamma_{D + 3} sum |q| |k|, is the relative error of its exponential. Then come S sums and products, one rescaling
  // per tile (bounded by S again) and the division; exp itself is within 2 ulp and enters once for a term and once for each rescaling.
  const int64_t s = x.s ? x.s : x.t;
  const double score_terms = static_cast<double>(x.d + 3) * std::max(want.score, 1.0);
  const double terms = 2 * score_terms + 3 * static_cast<double>(s) + 10;
  double in_out = 0;  // of the candidate whose out stays
  by_candidates(attention_forward, a.forward, x.chosen_only ? 1 : 99, [&](std::string_view candidate) {
    a.out.poison();
    a.lse.poison();
    a.run_forward();
    in_out = operands(candidate);
    CHECK_CLOSE(a.out.view(), want.out.data, want.out_magnitude.data, Bound{x.dtype, terms + in_out});
    CHECK(a.out.guards_intact());
    CHECK(a.lse.guards_intact());
    if (x.lse) {
      std::vector<double> size(want.lse.size());
      for (size_t i = 0; i < size.size(); ++i) size[i] = std::abs(want.lse[i]) + 1;
      CHECK_CLOSE(a.lse.view(), want.lse, size, Bound{accumulator_of(x.dtype), terms});
    }
  });
  if (!backward) return;

  // Backward reads the stored out in delta: its roundings act there, relative to sum |d_out| |out| <= the magnitude used here.
  const double grad_terms = terms + 2 * static_cast<double>(x.d) + static_cast<double>(x.t * x.h) + 10;
  by_candidates(attention_backward, a.backward, x.chosen_only ? 1 : 99, [&](std::string_view candidate) {
    a.grad.buffer.poison();
    a.run_backward();
    const double delta_terms = grad_terms + stored + in_out + operands(candidate);
    CHECK_CLOSE(a.grad.q, want.dq.data, want.dq_magnitude.data, Bound{x.dtype, delta_terms});
    CHECK_CLOSE(a.grad.k, want.dk.data, want.dk_magnitude.data, Bound{x.dtype, delta_terms});
    CHECK_CLOSE(a.grad.v, want.dv.data, want.dv_magnitude.data, Bound{x.dtype, grad_terms + operands(candidate)});
    CHECK(a.grad.buffer.guards_intact());
  });
}

constexpr size_t kDtypes = std::size(kFloating);

}  // namespace

TEST_CASE("attention: ragged lengths and head sizes in every dtype") {
  for (DType dtype : kFloating) {
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
      for (Documents documents : {Documents::none, Documents::growing}) {
        check_case({.b = 2, .t = 150, .h = 4, .kv = kv, .d = 16, .window = window, .dtype = kFloating[next++ % kDtypes], .documents = documents});
        check_case({.b = 2, .t = 70, .h = 4, .kv = kv, .d = 8, .window = window, .dtype = kFloating[next++ % kDtypes], .documents = documents});
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
        check_case({.b = 2, .t = t, .s = s, .h = 4, .kv = 2, .d = 24, .window = window, .dtype = kFloating[next++ % kDtypes]});
      }
      ++next;
    }
  }
}

// What a GPU cuts into parts of the keys: one part, several, the last of them short; a group that fills no tile and one that needs two.
TEST_CASE("attention: a few queries over a long KV cache") {
  const auto check_decoded = [](Case x) {
    x.aligned = true;
#if defined(HEDDLE_TEST_CUDA)
    const Attention a(x);
    test::register_kernels();
    CHECK(attention_forward.choose(kDevice, a.forward).name == "decode");
#endif
    check_case(x);
  };
  uint32_t state = 1;
  const auto any = [&](int64_t least, int64_t most) {
    state = state * 1664525 + 1013904223;
    return least + static_cast<int64_t>(state >> 8) % (most - least + 1);
  };
  for (int i = 0; i < 24; ++i) {
    constexpr int64_t kHeadSizes[] = {64, 128, 96, 8, 40};
    const int64_t t = i % 3 ? 1 : any(1, 8), s = any(t, i % 2 ? 150 : 700), kv = any(1, 2), group = any(1, i % 4 ? 5 : 12);
    check_decoded({.b = any(1, 2),
                   .t = t,
                   .s = s,
                   .h = kv * group,
                   .kv = kv,
                   .d = kHeadSizes[i % 5],
                   .window = i % 4 == 3 ? any(1, 200) : 0,
                   .dtype = kFloating[static_cast<size_t>(i) / 2 % kDtypes],
                   .lse = i % 6 != 5,
                   .spread = i % 7 == 6 ? 5.0 : 1.0});
  }
  for (DType dtype : kFloating) {
    check_decoded({.b = 1, .t = 1, .s = 1, .h = 1, .kv = 1, .d = 8, .dtype = dtype});
    check_decoded({.b = 2, .t = 8, .h = 2, .kv = 1, .d = 64, .dtype = dtype, .documents = Documents::growing});
    check_decoded({.b = 1, .t = 1, .s = 257, .h = 7, .kv = 1, .d = 64, .dtype = dtype});
  }
  check_decoded({.b = 1, .t = 1, .s = 32768, .h = 1, .kv = 1, .d = 64, .dtype = DType::bf16, .chosen_only = true});
}

TEST_CASE("attention: documents whose starts do not rise with the token") {
  for (DType dtype : kFloating) {
    check_case({.b = 2, .t = 150, .h = 2, .kv = 1, .d = 16, .dtype = dtype, .documents = Documents::scattered});
    check_case({.b = 2, .t = 90, .h = 2, .kv = 2, .d = 8, .window = 20, .dtype = dtype, .documents = Documents::scattered});
  }
}

// What tensor cores take: bf16, head sizes of whole tiles, rows at multiples of 16 bytes.
TEST_CASE("attention: aligned rows of 64, 96 and 128 in bf16") {
  constexpr DType kType = DType::bf16;
  for (int64_t d : {64, 96, 128}) {
    for (int64_t t : {1, 17, 130}) check_case({.b = 1, .t = t, .h = 1, .kv = 1, .d = d, .dtype = kType, .aligned = true});
    check_case({.b = 2, .t = 70, .h = 4, .kv = 2, .d = d, .dtype = kType, .aligned = true});
    check_case({.b = 1, .t = 200, .h = 3, .kv = 1, .d = d, .window = 50, .dtype = kType, .aligned = true});
    check_case({.b = 2, .t = 150, .h = 1, .kv = 1, .d = d, .dtype = kType, .documents = Documents::growing, .aligned = true});
    check_case({.b = 1, .t = 150, .h = 2, .kv = 1, .d = d, .window = 70, .dtype = kType, .documents = Documents::growing, .aligned = true});
    check_case({.b = 1, .t = 150, .h = 1, .kv = 1, .d = d, .dtype = kType, .documents = Documents::scattered, .aligned = true});
    check_case({.b = 2, .t = 1, .s = 133, .h = 2, .kv = 1, .d = d, .dtype = kType, .lse = false, .aligned = true});
    check_case({.b = 1, .t = 70, .s = 200, .h = 2, .kv = 2, .d = d, .window = 40, .dtype = kType, .aligned = true});
  }
}

// Which tiles need no mask, and which no visit, is decided by all tokens of a tile: each of them in turn differs from the others.
TEST_CASE("attention: one token of a tile sees less than its neighbours, or more") {
  for (Documents documents : {Documents::odd_one, Documents::odd_many})
    check_case({.b = 64, .t = 128, .h = 1, .kv = 1, .d = 96, .dtype = DType::bf16, .documents = documents, .aligned = true, .chosen_only = true});
  for (DType dtype : kFloating) check_case({.b = 32, .t = 70, .h = 1, .kv = 1, .d = 8, .dtype = dtype, .documents = Documents::odd_one});
}

TEST_CASE("attention: every head size whose rows lie aligned") {
  for (int64_t d = 8; d <= 256; d += d < 136 ? 8 : 24) check_case({.b = 1, .t = 17, .h = 1, .kv = 1, .d = d, .dtype = DType::bf16, .aligned = true});
}

TEST_CASE("attention: nothing to attend to") {
  for (DType dtype : kFloating) {
    check_case({.b = 0, .t = 5, .h = 2, .kv = 1, .d = 8, .dtype = dtype});
    check_case({.b = 2, .t = 0, .h = 2, .kv = 1, .d = 8, .dtype = dtype});
    check_case({.b = 2, .t = 0, .s = 4, .h = 2, .kv = 1, .d = 8, .dtype = dtype});
    check_case({.b = 0, .t = 5, .h = 2, .kv = 1, .d = 64, .dtype = dtype, .aligned = true});
    check_case({.b = 2, .t = 0, .h = 2, .kv = 1, .d = 64, .dtype = dtype, .aligned = true});
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
  for (const Case& x : {Case{.b = 1, .t = 200, .h = 1, .kv = 1, .d = 64},
                        Case{.b = 2, .t = 150, .h = 4, .kv = 2, .d = 32, .dtype = DType::bf16, .documents = Documents::growing},
                        Case{.b = 1, .t = 150, .h = 4, .kv = 2, .d = 64, .dtype = DType::bf16, .documents = Documents::growing, .aligned = true},
                        Case{.b = 1, .t = 2, .s = 1000, .h = 8, .kv = 2, .d = 64},
                        Case{.b = 1, .t = 3, .s = 900, .h = 5, .kv = 1, .d = 128, .dtype = DType::bf16, .aligned = true}}) {
    INFO(x);
    CHECK(test::same_on_any_thread_count([&] {
      Attention a(x);
      a.run_forward();
      if (!x.s) a.run_backward();
      return std::vector<Buffer>{a.out, a.lse, a.grad.buffer};
    }));
  }
}

TEST_CASE("attention: a document that begins behind its token, or before the sequence, is a fault that names it") {
  for (const bool tensor_cores : {false, true}) {
    const Case x{.b = 2,
                 .t = 70,
                 .h = 4,
                 .kv = 2,
                 .d = tensor_cores ? 64 : 8,
                 .dtype = tensor_cores ? DType::bf16 : DType::f32,
                 .documents = Documents::growing,
                 .aligned = tensor_cores};
    Attention a(x);
    a.run_forward();
    for (const auto& [token, start, text] : {std::tuple{2, 3, "document_start[b = 1][t = 2] is 3, not in [0, 2]"},
                                             {69, 70, "document_start[b = 1][t = 69] is 70, not in [0, 69]"},
                                             {40, 1 << 30, "document_start[b = 1][t = 40] is 1073741824, not in [0, 40]"},
                                             {0, -1, "document_start[b = 1][t = 0] is -1, not in [0, 0]"}}) {
      Buffer changed = a.start;
      changed.put(70 + token, start);
      a.forward.document_start = a.backward.document_start = changed.view();
      by_every_candidate(attention_forward, a.forward,
                         [&](std::string_view) { CHECK(test::contains(test::error_of(attention_forward, a.forward), text)); });
      by_every_candidate(attention_backward, a.backward,
                         [&](std::string_view) { CHECK(test::contains(test::error_of(attention_backward, a.backward), text)); });
      CHECK(a.out.guards_intact());
      CHECK(a.grad.buffer.guards_intact());
    }
  }
}

TEST_CASE("attention: arguments that contradict the contract give one error naming the shapes") {
  using Catch::Matchers::Contains;
  const auto refused = [](const std::function<void(AttentionForwardArgs&)>& change, const std::string& text) {
    Attention a({.b = 2, .t = 6, .h = 4, .kv = 2, .d = 8, .documents = Documents::growing});
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

  test::register_kernels();
  Attention wide({.b = 1, .t = 2, .h = 1, .kv = 1, .d = 300});
  CHECK_THROWS_WITH(attention_forward.choose(kDevice, wide.forward), Contains("head size 300 is above 256"));
  CHECK_THROWS_WITH(attention_backward.choose(kDevice, wide.backward), Contains("head size 300 is above 256"));

  Attention a({.b = 2, .t = 6, .h = 4, .kv = 2, .d = 8});
  const auto backward_refused = [&](const std::function<void(AttentionBackwardArgs&)>& change, const std::string& text) {
    AttentionBackwardArgs args = a.backward;
    change(args);
    CHECK_THROWS_WITH(check(args), Contains(text));
  };
  backward_refused([](auto& args) { args.dk.shape[2] = 4; }, "dk must be like k");
  backward_refused([](auto& args) { args.d_out.dtype = DType::f64; }, "d_out must be like q");
  backward_refused([](auto& args) { args.lse = View{}; }, "lse is absent");
}

TEST_CASE("attention: scratch that is too small is refused", "[cpu]") {
  Attention a({.b = 2, .t = 6, .h = 4, .kv = 2, .d = 8});
  a.run_forward();
  std::vector<std::byte> little(8);
  a.backward.scratch = little;
  CHECK_THROWS_WITH(attention_backward.candidates(DeviceType::cpu)[0].run(a.backward, Stream{}),
                    Catch::Matchers::Contains("scratch too small: 8 of"));
}

}  // namespace heddle::kernels
