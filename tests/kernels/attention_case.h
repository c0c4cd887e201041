// One call of attention against the float64 oracle, by every candidate that takes it: what the tests of attention are made of.
#pragma once

#include <limits>
#include <string>

#include "kernels/api/attention.h"
#include "tests/kernels/kernel_case.h"
#include "tests/oracles/attention.h"
#include "tests/support/buffer.h"
#include "tests/support/catch.h"
#include "tests/support/compare.h"

namespace heddle::kernels::attention_case {

using test::Bound;
using test::Buffer;
using test::kDevice;
using test::kFloating;

// scattered: starts that do not rise with the token. odd_one: of each 64 tokens one, another in each sequence, sees but itself, the others all;
// odd_many: the other way round. last: each sees but itself, only the last token of an even sequence sees them all.
enum class Documents { none, growing, scattered, odd_one, odd_many, last };

struct Case {
  int64_t b = 1, t = 1, s = 0, h = 1, kv = 1, d = 8;  // s: 0 means t
  int64_t window = 0;
  DType dtype = DType::f32;
  Documents documents = Documents::none;
  bool lse = true, aligned = false;  // aligned: all rows start at multiples of 16 bytes
  bool chosen_only = false;          // by the first candidate alone
  bool odd_gradient = false;         // d_out is 0 but of odd_one's odd tokens
  bool positions = false;            // each sequence fills the cache to a place of its own; behind it lies NaN
  double spread = 1;
};

inline std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << name_of(c.dtype) << " B " << c.b << " T " << c.t << " S " << (c.s ? c.s : c.t) << " H " << c.h << "/" << c.kv << " D " << c.d
             << " window " << c.window << " documents " << static_cast<int>(c.documents) << (c.positions ? " positions" : "") << " spread "
             << c.spread;
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
  Buffer out, lse, d_out, start, position;
  AttentionForwardArgs forward;
  AttentionBackwardArgs backward;

  explicit Attention(const Case& x) : in(x), grad(x) {
    in.buffer.normal(1, 0, x.spread);
    in.queries.normal(2, 0, x.spread);
    out = Buffer(x.dtype, {x.b, x.t, x.h, x.d}, {.padding = x.aligned ? 8 : 3});
    lse = Buffer(accumulator_of(x.dtype), {x.b, x.h, x.t}, {.padding = 2});
    d_out = Buffer(x.dtype, {x.b, x.t, x.h, x.d});
    d_out.normal(3);
    if (x.odd_gradient) {
      const int64_t width = x.h * x.d;
      for (int64_t i = 0; i < x.b * x.t * width; ++i)
        if (i / width % x.t % 64 != i / width / x.t % 64) d_out.put(i, 0);
    }
    start = Buffer(DType::i32, {x.b, x.t}, {.padding = 1});
    // Documents of growing length; sequence b begins with another cut.
    start.fill([&](int64_t i) {
      const int64_t b = i / x.t, t = i % x.t;
      if (x.documents == Documents::scattered) return static_cast<double>((i * 7919 + 13 * b) % (t + 1));
      if (x.documents == Documents::odd_one || x.documents == Documents::odd_many)
        return (t % 64 == b % 64) == (x.documents == Documents::odd_one) ? static_cast<double>(t) : 0.0;
      if (x.documents == Documents::last) return t + 1 == x.t && b % 2 == 0 ? 0.0 : static_cast<double>(t);
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
    if (x.positions) fill_to_positions(x);
    backward = {
        .q = in.q, .k = in.k, .v = in.v, .out = out.view(), .lse = lse.view(), .d_out = d_out.view(), .dq = grad.q, .dk = grad.k, .dv = grad.v};
    backward.document_start = forward.document_start;
    backward.scale = forward.scale;
    backward.window = forward.window;
  }
  Attention(const Attention&) = delete;

  void fill_to_positions(const Case& x) {
    const int64_t s = in.k.size(1), last = s - x.t;
    position = Buffer(DType::i32, {x.b}, {.padding = 3});
    position.fill([&](int64_t b) { return static_cast<double>(b == 0 ? last * 2 / 3 : b == 1 ? last : (b * 37) % (last + 1)); });
    forward.position = position.view();
    const int64_t width = (x.h + 2 * x.kv) * x.d;
    for (int64_t i = 0; i < x.b * s * width; ++i) {
      const bool is_key = in.q.data == in.queries.view().data || i % width >= x.h * x.d;
      if (is_key && i / width % s >= test::element(position.view(), i / width / s) + static_cast<double>(x.t))
        in.buffer.put(i, std::numeric_limits<double>::quiet_NaN());
    }
  }

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

inline void check_case(const Case& x) {
  INFO(x);
  Attention a(x);
  const bool backward = x.s == 0 && x.lse && !x.positions;
  const auto& f = a.forward;
  const auto want = oracle::attention(f.q, f.k, f.v, f.document_start, f.scale, f.window, backward ? a.d_out.view() : View{}, f.position);

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

inline constexpr size_t kDtypes = std::size(kFloating);

}  // namespace heddle::kernels::attention_case
