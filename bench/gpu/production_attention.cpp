// Attention of the production list.
#include <cmath>

#include "bench/gpu/production_list.h"

namespace heddle::bench {

using namespace kernels;  // NOLINT: a program's own source

namespace {

struct AttentionShape {
  int64_t b, t, h, kv, d, window = 0;
  bool documents = false;
};
constexpr AttentionShape kAttention[] = {{4, 1024, 12, 12, 64},        {1, 4096, 16, 16, 64},       {1, 4096, 16, 4, 128},
                                         {1, 8192, 16, 16, 128},       {1, 4096, 16, 4, 128, 1024}, {1, 4096, 16, 16, 64, 0, true},
                                         {2, 4000, 7, 1, 64, 0, false}};
constexpr AttentionShape kSmallAttention[] = {{1, 70, 2, 1, 64}, {1, 40, 1, 1, 128, 16, true}};

// Heads [first, first + count) of rows that hold all of them, as a packed projection leaves them.
View heads(const View& rows, int64_t first, int64_t count, int64_t d) {
  View view = rows;
  view.rank = 4;
  view.shape = {rows.shape[0], rows.shape[1], count, d};
  view.stride = {rows.stride[0], rows.stride[1], d, 1};
  view.data += first * d * size_of(rows.dtype);
  return view;
}
std::vector<int32_t> documents_of(const AttentionShape& s) {
  const int64_t length = s.t / 3 + 1;
  std::vector<int32_t> starts;
  for (int64_t i = 0; i < s.b * s.t; ++i) starts.push_back(static_cast<int32_t>(i % s.t / length * length));
  return starts;
}
std::string name_of_shape(const AttentionShape& s) {
  return concat("B ", s.b, " T ", s.t, " H ", s.h, "/", s.kv, " D ", s.d, s.window > 0 ? concat(" window ", s.window) : "",
                s.documents ? " documents" : "");
}
// Without results.
AttentionForwardArgs made(Memory& memory, const AttentionShape& s) {
  const View rows = memory.normal(DType::bf16, {s.b, s.t, (s.h + 2 * s.kv) * s.d});
  AttentionForwardArgs args{.q = heads(rows, 0, s.h, s.d), .k = heads(rows, s.h, s.kv, s.d), .v = heads(rows, s.h + s.kv, s.kv, s.d)};
  if (s.documents) args.document_start = memory.listed({s.b, s.t}, documents_of(s));
  args.scale = 1 / std::sqrt(static_cast<float>(s.d));
  args.window = s.window;
  return args;
}

}  // namespace

void add_attention(Entries& entries) {
  const auto add = [&](const AttentionShape& s) {
    const double keys = s.window > 0 ? static_cast<double>(s.window) : static_cast<double>(s.t) / 2;
    const double flops = 4 * static_cast<double>(s.b * s.t * s.h * s.d) * keys / (s.documents ? 3 : 1);
    const double bytes = 2 * static_cast<double>(s.b * s.t * (2 * s.h + 2 * s.kv) * s.d);
    const std::string torch = s.documents || s.window > 0 ? "" : concat("attention ", s.b, " ", s.t, " ", s.h, " ", s.kv, " ", s.d);
    entries.add<AttentionForwardArgs>(attention_forward, name_of_shape(s), [=](Memory& memory) {
      AttentionForwardArgs args = made(memory, s);
      args.out = memory.output(DType::bf16, {s.b, s.t, s.h, s.d});
      args.lse = memory.output(DType::f32, {s.b, s.h, s.t});
      return Problem<AttentionForwardArgs>{args, flops, bytes, torch};
    });
  };
  const auto add_backward = [&](const AttentionShape& s) {
    const double keys = s.window > 0 ? static_cast<double>(s.window) : static_cast<double>(s.t) / 2;
    const double flops = 10 * static_cast<double>(s.b * s.t * s.h * s.d) * keys / (s.documents ? 3 : 1);
    const double bytes = 2 * static_cast<double>(s.b * s.t * (4 * s.h + 4 * s.kv) * s.d);
    entries.add<AttentionBackwardArgs>(attention_backward, name_of_shape(s), [=](Memory& memory) {
      AttentionForwardArgs forward = made(memory, s);
      forward.out = memory.zeros(DType::bf16, {s.b, s.t, s.h, s.d});
      forward.lse = memory.zeros(DType::f32, {s.b, s.h, s.t});
      run_now(attention_forward, forward, memory);
      AttentionBackwardArgs args{.q = forward.q, .k = forward.k, .v = forward.v, .out = forward.out, .lse = forward.lse};
      args.d_out = memory.normal(DType::bf16, {s.b, s.t, s.h, s.d});
      const View gradients = memory.output(DType::bf16, {s.b, s.t, (s.h + 2 * s.kv) * s.d});
      args.dq = heads(gradients, 0, s.h, s.d);
      args.dk = heads(gradients, s.h, s.kv, s.d);
      args.dv = heads(gradients, s.h + s.kv, s.kv, s.d);
      args.document_start = forward.document_start;
      args.scale = forward.scale;
      args.window = forward.window;
      return Problem<AttentionBackwardArgs>{args, flops, bytes};
    });
  };
  if (entries.sizes() == Sizes::small) {
    for (const AttentionShape& s : kSmallAttention) add(s), add_backward(s);
  } else {
    for (const AttentionShape& s : kAttention) {
      add(s);
      if (s.t <= 4096) add_backward(s);  // the reference takes as long as all of A beyond
    }
  }
}

}  // namespace heddle::bench
