// The operations of the production list that move memory: one entry a kernel, at 124M-parameter sizes of 8192 tokens.
#include <cmath>

#include "bench/gpu/production_list.h"

namespace heddle::bench {

using namespace kernels;  // NOLINT: a program's own source

namespace {

constexpr DType kBf16 = DType::bf16, kF32 = DType::f32;

struct Rows {
  int64_t n, columns;
  double elements() const { return static_cast<double>(n) * static_cast<double>(columns); }
};
std::string text(const Rows& r) {
  return concat(r.n, " x ", r.columns);
}

}  // namespace

// ---- rows ----

void add_rows(Entries& entries) {
  const bool small = entries.sizes() == Sizes::small;
  for (const Rows r : small ? std::vector<Rows>{{9, 264}} : std::vector<Rows>{{8192, 768}, {8192, 4096}}) {
    for (const NormKind kind : {NormKind::layer, NormKind::rms}) {
      const bool layer = kind == NormKind::layer;
      const std::string shape = (layer ? "layer " : "rms ") + text(r);
      entries.add<NormForwardArgs>(norm_forward, shape + " residual", [=](Memory& m) {
        NormForwardArgs args{.kind = kind, .x = m.normal(kBf16, {r.n, r.columns}), .residual = m.normal(kBf16, {r.n, r.columns})};
        args.gain = m.normal(kBf16, {r.columns}, 1, 0.1);
        if (layer) args.bias = m.normal(kBf16, {r.columns});
        args.sum = m.output(kBf16, {r.n, r.columns});
        args.y = m.output(kBf16, {r.n, r.columns});
        if (layer) args.mean = m.output(kF32, {r.n});
        args.rstd = m.output(kF32, {r.n});
        return Problem<NormForwardArgs>{args, 0, 8 * r.elements(), concat("norm ", layer ? "layer " : "rms ", r.n, " ", r.columns)};
      });
      entries.add<NormBackwardArgs>(norm_backward, shape + " residual", [=](Memory& m) {
        NormForwardArgs forward{.kind = kind, .x = m.normal(kBf16, {r.n, r.columns}), .gain = m.normal(kBf16, {r.columns}, 1, 0.1)};
        forward.y = m.zeros(kBf16, {r.n, r.columns});
        if (layer) forward.mean = m.zeros(kF32, {r.n});
        forward.rstd = m.zeros(kF32, {r.n});
        run_now(norm_forward, forward, m);
        NormBackwardArgs args{.kind = kind, .x = forward.x, .gain = forward.gain, .mean = forward.mean, .rstd = forward.rstd};
        args.dy = m.normal(kBf16, {r.n, r.columns});
        args.d_residual = m.normal(kBf16, {r.n, r.columns});
        args.dx = {m.output(kBf16, {r.n, r.columns})};
        args.d_gain = m.added(kF32, {r.columns});
        if (layer) args.d_bias = m.added(kF32, {r.columns});
        return Problem<NormBackwardArgs>{args, 0, 8 * r.elements()};
      });
    }
  }

  const Rows scores = small ? Rows{7, 133} : Rows{8192, 4096};
  entries.add<SoftmaxArgs>(softmax, text(scores), [=](Memory& m) {
    SoftmaxArgs args{.x = m.normal(kBf16, {scores.n, scores.columns}, 0, 3), .out = m.output(kBf16, {scores.n, scores.columns}), .scale = 0.5f};
    return Problem<SoftmaxArgs>{args, 0, 4 * scores.elements()};
  });
  entries.add<SoftmaxBackwardArgs>(softmax_backward, text(scores), [=](Memory& m) {
    SoftmaxBackwardArgs args{.y = m.normal(kBf16, {scores.n, scores.columns}, 0.01, 0.002), .dy = m.normal(kBf16, {scores.n, scores.columns})};
    args.dx = {m.output(kBf16, {scores.n, scores.columns})};
    return Problem<SoftmaxBackwardArgs>{args, 0, 6 * scores.elements()};
  });

  const Rows logits = small ? Rows{5, 517} : Rows{4096, 50304};
  const int64_t vocab = logits.columns;
  entries.add<CrossEntropyStatsArgs>(cross_entropy_stats, text(logits), [=](Memory& m) {
    CrossEntropyStatsArgs args{.logits = m.normal(kBf16, {logits.n, vocab}, 0, 3), .targets = m.below(DType::i32, {logits.n}, vocab)};
    args.stats = m.output(kF32, {logits.n, 3});
    return Problem<CrossEntropyStatsArgs>{args, 0, 2 * logits.elements()};
  });
  entries.add<CrossEntropyArgs>(cross_entropy, text(logits) + " gradient", [=](Memory& m) {
    CrossEntropyArgs args{.logits = m.in_place(kBf16, {logits.n, vocab}, 0, 3), .targets = m.below(DType::i32, {logits.n}, vocab)};
    args.stats = m.zeros(kF32, {1, logits.n, 3});
    run_now(cross_entropy_stats, {.logits = args.logits, .targets = args.targets, .stats = make_view(args.stats.data, kF32, {logits.n, 3})}, m);
    args.losses = m.output(kF32, {logits.n});
    args.nll = m.output(kF32, {logits.n});
    args.z_loss = 1e-4f;
    args.scale = 0.25f;
    args.write_gradient = true;
    return Problem<CrossEntropyArgs>{args, 0, 4 * logits.elements()};
  });

  const Rows table = small ? Rows{70, 72} : Rows{8192, 3072};
  entries.add<ColumnSumArgs>(column_sum, text(table), [=](Memory& m) {
    return Problem<ColumnSumArgs>{{.x = m.normal(kBf16, {table.n, table.columns}), .out = m.added(kF32, {table.columns})}, 0, 2 * table.elements()};
  });
  const int64_t summed = small ? 1003 : int64_t{1} << 27;
  for (const DType dtype : {kBf16, kF32}) {
    entries.add<SumArgs>(sum, concat("squares of ", summed, " ", name_of(dtype)), [=](Memory& m) {
      SumArgs args{.x = m.normal(dtype, {summed}), .out = {m.output(kF32, {1})}, .scale = 0.5, .squares = true};
      return Problem<SumArgs>{args, 0, static_cast<double>(summed * size_of(dtype))};
    });
  }
}

// ---- elements ----

void add_elements(Entries& entries) {
  const bool small = entries.sizes() == Sizes::small;
  const Rows r = small ? Rows{9, 136} : Rows{8192, 3072};
  const auto made = [=](Memory& m, double stddev = 1) { return m.normal(kBf16, {r.n, r.columns}, 0, stddev); };
  const auto result = [=](Memory& m) { return m.output(kBf16, {r.n, r.columns}); };

  entries.add<AxpbyArgs>(axpby, text(r) + " sum of two", [=](Memory& m) {
    return Problem<AxpbyArgs>{{.a = made(m), .b = made(m), .out = {result(m)}, .alpha = 0.5, .beta = 2}, 0, 6 * r.elements()};
  });
  entries.add<AxpbyArgs>(axpby, text(r) + " f32 to bf16", [=](Memory& m) {
    return Problem<AxpbyArgs>{{.a = m.normal(kF32, {r.n, r.columns}), .out = {result(m)}}, 0, 6 * r.elements()};
  });
  entries.add<MultiplyArgs>(multiply, text(r), [=](Memory& m) {
    return Problem<MultiplyArgs>{{.a = made(m), .b = made(m), .out = {result(m)}}, 0, 6 * r.elements()};
  });
  for (const auto& [map_of, name] : {std::pair(Map::gelu, "gelu "), std::pair(Map::relu2, "relu2 "), std::pair(Map::silu, "silu ")}) {
    const Map which = map_of;
    entries.add<MapArgs>(map, name + text(r), [=](Memory& m) {
      return Problem<MapArgs>{{.map = which, .x = made(m, 2), .out = result(m)}, 0, 4 * r.elements()};
    });
    entries.add<MapBackwardArgs>(map_backward, name + text(r), [=](Memory& m) {
      return Problem<MapBackwardArgs>{{.map = which, .x = made(m, 2), .dy = made(m), .dx = {result(m)}}, 0, 6 * r.elements()};
    });
  }
  entries.add<SwigluArgs>(swiglu, text(r), [=](Memory& m) {
    return Problem<SwigluArgs>{{.x = m.normal(kBf16, {r.n, 2 * r.columns}), .out = result(m)}, 0, 6 * r.elements()};
  });
  entries.add<SwigluBackwardArgs>(swiglu_backward, text(r), [=](Memory& m) {
    return Problem<SwigluBackwardArgs>{
        {.x = m.normal(kBf16, {r.n, 2 * r.columns}), .d_out = made(m), .dx = m.output(kBf16, {r.n, 2 * r.columns})}, 0, 10 * r.elements()};
  });
  entries.add<FillArgs>(fill, text(r), [=](Memory& m) { return Problem<FillArgs>{{.out = result(m), .value = 1.5}, 0, 2 * r.elements()}; });

  const int64_t n = small ? 1003 : int64_t{8192} * 3072;
  entries.add<DropoutArgs>(dropout, concat("of ", n), [=](Memory& m) {
    DropoutArgs args{.x = m.normal(kBf16, {n}), .out = {m.output(kBf16, {n})}, .key = {.seed = 7, .name = 3}, .first = 4, .p = 0.1f};
    return Problem<DropoutArgs>{args, 0, 4 * static_cast<double>(n)};
  });
  entries.add<NormalArgs>(normal, concat("of ", n), [=](Memory& m) {
    NormalArgs args{.out = m.output(kF32, {n}), .key = {.seed = 7, .name = 3}, .first = 4, .mean = 0.5f, .std = 2};
    return Problem<NormalArgs>{args, 0, 4 * static_cast<double>(n)};
  });

  // Rows of tokens that hold all heads of q, k and v; v is left as it is.
  const int64_t b = small ? 2 : 8, t = small ? 11 : 1024, h = small ? 2 : 12, d = small ? 16 : 64;
  entries.add<RopeArgs>(rope, concat("B ", b, " T ", t, " H ", 3 * h, " D ", d), [=](Memory& m) {
    RopeArgs args{.x = m.in_place(kBf16, {b, t, 3 * h, d}), .table = m.normal(kF32, {t + 3, d}), .first = 3, .rotated = 2 * h};
    args.out = args.x;
    return Problem<RopeArgs>{args, 0, 8 * static_cast<double>(b * t * h * d)};
  });
  const int64_t vocab = small ? 37 : 50304, columns = small ? 24 : 768;
  const double moved = static_cast<double>(b * t * columns);
  entries.add<EmbeddingForwardArgs>(embedding_forward, concat("B ", b, " T ", t, " V ", vocab, " C ", columns), [=](Memory& m) {
    EmbeddingForwardArgs args{.tokens = m.below(DType::i32, {b, t}, vocab), .weight = m.normal(kBf16, {vocab, columns})};
    args.position = m.normal(kBf16, {t, columns});
    args.out = m.output(kBf16, {b, t, columns});
    return Problem<EmbeddingForwardArgs>{args, 0, 4 * moved};
  });
  entries.add<EmbeddingBackwardArgs>(embedding_backward, concat("B ", b, " T ", t, " V ", vocab, " C ", columns), [=](Memory& m) {
    EmbeddingBackwardArgs args{.tokens = m.below(DType::i32, {b, t}, vocab), .d_out = m.normal(kBf16, {b, t, columns})};
    args.d_weight = m.added(kF32, {vocab, columns});
    args.d_position = m.added(kF32, {t, columns});
    return Problem<EmbeddingBackwardArgs>{args, 0, 10 * moved};
  });
}

// ---- optimizer ----

void add_optimizer(Entries& entries) {
  const bool small = entries.sizes() == Sizes::small;
  StepState state;
  state.lr = 0.5f;
  state.clip_scale = 0.75f;
  state.adam_t = 3;
  const int64_t n = small ? 384 : int64_t{124} << 20;
  entries.add<AdamWArgs>(adamw, concat("of ", n), [=](Memory& m) {
    AdamWArgs args{.value = m.output(kBf16, {n}), .master = m.in_place(kF32, {n}), .grad = m.normal(kF32, {n}, 0, 0.1)};
    args.m = m.in_place(kF32, {n}, 0, 0.1);
    args.v = m.in_place(kF32, {n}, 1, 0.05);
    args.group_of_block = m.below(DType::u8, {n / kArenaBlock}, 2);
    args.groups[0] = {.lr = 1e-2f, .weight_decay = 0.1f};
    args.groups[1] = {.lr = 3e-2f, .weight_decay = 0};
    args.step = m.put(state);
    return Problem<AdamWArgs>{args, 0, 30 * static_cast<double>(n)};
  });
  const Rows matrix = small ? Rows{48, 72} : Rows{3072, 768};
  const int64_t size = matrix.n * matrix.columns;
  entries.add<MuonMomentumArgs>(muon_momentum, text(matrix), [=](Memory& m) {
    MuonMomentumArgs args{.grad = m.normal(kF32, {size}), .momentum = m.in_place(kF32, {size}), .out = m.output(kBf16, {size})};
    args.step = m.put(state);
    return Problem<MuonMomentumArgs>{args, 0, 14 * matrix.elements()};
  });
  entries.add<NormalizeArgs>(normalize, text(matrix), [=](Memory& m) {
    NormalizeArgs args{.x = m.normal(kBf16, {matrix.n, matrix.columns}), .out = m.output(kBf16, {matrix.n, matrix.columns})};
    return Problem<NormalizeArgs>{args, 0, 6 * matrix.elements()};
  });
  entries.add<MuonApplyArgs>(muon_apply, text(matrix), [=](Memory& m) {
    MuonApplyArgs args{.value = m.output(kBf16, {size}), .master = m.in_place(kF32, {size}), .update = m.normal(kBf16, {size})};
    args.group = {.lr = 1e-2f, .weight_decay = 0.1f};
    args.scale = 0.5f;
    args.step = m.put(state);
    return Problem<MuonApplyArgs>{args, 0, 12 * matrix.elements()};
  });
}

}  // namespace heddle::bench
