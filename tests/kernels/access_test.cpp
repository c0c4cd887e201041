// What kernels ask of memory where everything is aligned: whole sectors, and no bank twice. Counted by the check flavour of the simulated machine;
// the others count nothing.
#include "kernels/api/attention.h"
#include "kernels/api/cross_entropy.h"
#include "kernels/api/embedding.h"
#include "kernels/api/matmul.h"
#include "kernels/api/norm.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/random.h"
#include "kernels/api/reduce.h"
#include "kernels/api/rope.h"
#include "kernels/api/sample.h"
#include "kernels/sim/check/check.h"
#include "kernels/sim/core/machine.h"
#include "tests/kernels/kernel_case.h"

namespace heddle::kernels {
namespace {

using test::Buffer;
using test::run;

// Transactions that f() needs beyond those for the number of its bytes, line by line, in the sources of this name. Lines of a factor's source may
// need `of_ideal` times the ideal.
struct Factor {
  std::string source;
  double of_ideal = 1;
};
template <class F>
std::string wasted(const std::string& source, const F& f, const std::vector<Factor>& factors = {}) {
  if (!sim::checking) return "";
  sim::count_accesses(true);
  f();
  sim::count_accesses(false);
  std::string text;
  uint64_t counted = 0;
  for (const sim::AccessCount& count : sim::access_counts()) {
    if (count.file.find(source) == std::string::npos) continue;
    counted += count.transactions;
    double allowed = 1;
    for (const Factor& factor : factors)
      if (!count.shared && count.file.find(factor.source) != std::string::npos) allowed = factor.of_ideal;
    if (static_cast<double>(count.transactions) > allowed * static_cast<double>(count.ideal))
      text += concat(count.file, ":", count.line, count.shared ? " shared " : " global ", count.extra(), " of ", count.transactions, "; ");
  }
  return counted == 0 ? "nothing counted in " + source : text;
}

TEST_CASE("maps of aligned views move whole sectors", "[access]") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (DType out_type : {DType::f32, DType::bf16}) {
      Buffer a(type, {5, 512}, {.padding = 32}), b(type, {5, 512}), out(out_type, {5, 512}, {.padding = 64});
      a.normal(1);
      b.normal(2);
      out.normal(3);
      INFO(name_of(type) << " -> " << name_of(out_type));
      CHECK(wasted("map.cuh", [&] { run(axpby, AxpbyArgs{a.view(), b.view(), {out.view(), true}}); }) == "");
      CHECK(wasted("map.cuh", [&] { run(axpby, AxpbyArgs{a.view(), {}, {out.view()}}); }) == "");
    }
    Buffer x(type, {6, 1024}), y(type, {6, 512}), dx(type, {6, 1024});
    x.normal(1);
    y.normal(2);
    CHECK(wasted("map.cuh", [&] { run(swiglu_backward, SwigluBackwardArgs{x.view(), y.view(), dx.view()}); }) == "");
    CHECK(wasted("map.cuh", [&] { run(map, MapArgs{Map::gelu, x.view(), dx.view()}); }) == "");
    CHECK(wasted("map.cuh", [&] { run(dropout, DropoutArgs{x.view(), {dx.view(), true}, {}, 8, 0.5f}); }) == "");
    CHECK(wasted("fill.cu", [&] { run(fill, FillArgs{y.view(), 1}); }) == "");
  }
}

TEST_CASE("a KV cache and a row of logits are read by whole sectors", "[access]") {
  const auto wasted_of_memory = [](const std::string& source, const auto& f) {
    const std::string text = wasted(source, f);
    CHECK(text.find("nothing counted") == std::string::npos);
    return text.find(" global ") == std::string::npos ? "" : text;  // what blocks join through shared memory is little
  };
  for (DType type : {DType::f32, DType::bf16}) {
    for (int64_t d : {64, 128}) {
      Buffer q(type, {1, 1, 4, d}), k(type, {1, 120, 1, d}), v(type, {1, 120, 1, d}), out(type, {1, 1, 4, d});
      q.normal(1);
      k.normal(2);
      v.normal(3);
      INFO(name_of(type) << " D " << d);
      AttentionForwardArgs args{.q = q.view(), .k = k.view(), .v = v.view(), .out = out.view(), .scale = 0.125f};
      CHECK(wasted_of_memory("attention_decode.cuh", [&] { run(attention_forward, args); }) == "");
      Buffer position(DType::i32, {1});
      position.put(0, 90);
      args.position = position.view();
      CHECK(wasted_of_memory("attention_decode.cuh", [&] { run(attention_forward, args); }) == "");
    }
    Buffer logits(type, {1, 4096}), draw(DType::i32, {1}), text(DType::i32, {1}), tokens(DType::i32, {1});
    logits.normal(4);
    draw.put(0, 3);
    text.put(0, 1);
    CHECK(wasted_of_memory("rows.cuh", [&] {
            run(sample,
                SampleArgs{.logits = logits.view(), .draw = draw.view(), .text = text.view(), .tokens = tokens.view(), .top_k = 50, .top_p = 0.9});
          }) == "");
  }
}

TEST_CASE("a transposed operand: whole sectors on either side, no bank conflict between them", "[access]") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (DType out_type : {DType::f32, DType::bf16}) {
      Buffer stored(type, {192, 128}), b(out_type, {128, 192}), out(out_type, {128, 192});
      stored.normal(1);
      b.normal(2);
      View a = stored.view();
      std::swap(a.shape[0], a.shape[1]);
      std::swap(a.stride[0], a.stride[1]);
      const auto transpose = [&] { run(axpby, AxpbyArgs{a, b.view(), {out.view()}}); };
      INFO(name_of(type) << " -> " << name_of(out_type));
      CHECK(wasted("map.cuh", transpose) == "");
      CHECK(wasted("transpose.cuh", transpose) == "");
    }
  }
}

TEST_CASE("sums, embeddings and optimizers of aligned arrays move whole sectors, and meet no bank conflict", "[access]") {
  for (DType type : {DType::f32, DType::bf16}) {
    INFO(name_of(type));
    const int64_t columns = 256, n = 40;
    Buffer x(type, {n, columns}), total(DType::f32, {1}), totals(DType::f32, {columns}), flat(type, {n * columns});
    x.normal(1);
    flat.normal(2);
    CHECK(wasted("", [&] { run(sum, SumArgs{flat.view(), {total.view()}, 1, true}); }) == "");
    // A warp's slots lie a piece apart in the row of partial sums: few bytes, the rest is whole.
    const Factor partials{"ordered_sum.cuh", static_cast<double>(16 / size_of(type))};
    CHECK(wasted("", [&] { run(column_sum, ColumnSumArgs{x.view(), {totals.view()}, {}}); }, {partials}) == "");
    CHECK(wasted("", [&] { run(normalize, NormalizeArgs{.x = x.view(), .out = x.view()}); }) == "");
    Buffer tokens(DType::i32, {2, 32}), weight(type, {n, columns}), out(type, {2, 32, columns}), d_weight(DType::f32, {n, columns});
    tokens.fill([](int64_t i) { return static_cast<double>(i * i % 40); });
    weight.normal(3);
    out.normal(4);
    // The rows; not what groups the tokens, a few bytes for each.
    CHECK(wasted("piece.cuh", [&] {
            run(embedding_backward, EmbeddingBackwardArgs{tokens.view(), {}, out.view(), {d_weight.view()}, {}, {}});
          }) == "");
    CHECK(wasted("", [&] { run(embedding_forward, EmbeddingForwardArgs{tokens.view(), weight.view(), {}, {}, out.view()}); }) == "");
    const int64_t size = 2 * kArenaBlock;
    StepState step;
    Buffer value(type, {size}), master(DType::f32, {size}), grad(DType::f32, {size}), m(DType::f32, {size}), v(DType::f32, {size}),
        group(DType::u8, {2}), direction(type, {size});
    for (Buffer* buffer : {&value, &master, &grad, &m}) buffer->normal(5);
    v.fill([](int64_t) { return 1; });
    group.fill([](int64_t) { return 0; });
    CHECK(wasted("", [&] {
            AdamWArgs args;
            args.value = type == DType::f32 ? master.view() : value.view(), args.master = master.view(), args.grad = grad.view(), args.m = m.view();
            args.v = v.view(), args.group_of_block = group.view(), args.step = &step, args.groups[0] = {0.01f, 0.1f};
            run(adamw, args);
          }) == "");
    CHECK(wasted("", [&] { run(muon_momentum, MuonMomentumArgs{grad.view(), m.view(), direction.view(), 0.95f, true, &step}); }) == "");
    CHECK(wasted("", [&] { run(muon_apply, MuonApplyArgs{value.view(), master.view(), direction.view(), {0.04f, 0.5f}, 3, &step}); }) == "");
  }
}

// Rows of every length for which kernels/cuda/rows_config.h has a team of its own.
constexpr int64_t kRowBytes[] = {128, 256, 1024, 2048, 8192, 16384, 18432};

TEST_CASE("norms of aligned rows move whole sectors, and meet no bank conflict", "[access]") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (const int64_t bytes : kRowBytes) {
      const int64_t columns = bytes / size_of(type), n = bytes <= 2048 ? 32 : 2;
      Buffer x(type, {n, columns}), residual(type, {n, columns}), gain(type, {columns}), bias(type, {columns}), total(type, {n, columns}),
          y(type, {n, columns}), mean(DType::f32, {n}), rstd(DType::f32, {n}), d_gain(DType::f32, {columns}), d_bias(DType::f32, {columns});
      for (Buffer* buffer : {&x, &residual, &gain, &bias}) buffer->normal(1);
      for (const NormKind kind : {NormKind::layer, NormKind::rms}) {
        if (kind == NormKind::rms && bytes > 128) continue;  // the same pieces
        INFO(name_of(type) << ", " << columns << " columns, " << (kind == NormKind::layer ? "layer" : "rms"));
        NormForwardArgs forward{kind, x.view(), residual.view(), gain.view(), bias.view(), total.view(), y.view(), mean.view(), rstd.view()};
        NormBackwardArgs backward{kind, total.view(), gain.view(), mean.view(), rstd.view(), x.view(), residual.view(), {y.view()}};
        if (kind == NormKind::rms) forward.bias = forward.mean = backward.mean = {};
        CHECK(wasted("", [&] { run(norm_forward, forward); }) == "");
        CHECK(wasted("", [&] { run(norm_backward, backward); }) == "");
        // Partial sums are few bytes: in f32 beside bf16 two stores share a sector, and what a warp adds of whole columns lies a piece apart.
        backward.dx = {};
        backward.d_gain = {d_gain.view()};
        if (kind == NormKind::layer) backward.d_bias = {d_bias.view()};
        const double piece = 16.0 / static_cast<double>(size_of(type));
        CHECK(wasted("", [&] { run(norm_backward, backward); }, {{"rows.cuh", piece / 4}, {"ordered_sum.cuh", piece}}) == "");
      }
    }
  }
}

TEST_CASE("softmax and cross entropy of aligned rows move whole sectors, and meet no bank conflict", "[access]") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (const int64_t bytes : kRowBytes) {
      const int64_t columns = bytes / size_of(type), n = bytes <= 2048 ? 32 : 2;
      Buffer x(type, {n, columns}), y(type, {n, columns}), dy(type, {n, columns});
      x.normal(1);
      dy.normal(2);
      INFO(name_of(type) << ", " << columns << " columns");
      CHECK(wasted("", [&] { run(softmax, SoftmaxArgs{x.view(), y.view()}); }) == "");
      CHECK(wasted("", [&] { run(softmax_backward, SoftmaxBackwardArgs{y.view(), dy.view(), {dy.view()}}); }) == "");
      Buffer targets(DType::i32, {n}), stats(DType::f32, {1, n, 3}), losses(DType::f32, {n}), nll(DType::f32, {n}), weights(DType::f32, {n});
      targets.fill([&](int64_t i) { return static_cast<double>(i * 7 % columns); });
      weights.normal(3);
      View of_rows = stats.view();
      of_rows.rank = 2;
      of_rows.shape[0] = n, of_rows.shape[1] = 3, of_rows.stride[0] = 3, of_rows.stride[1] = 1;
      CHECK(wasted("", [&] { run(cross_entropy_stats, CrossEntropyStatsArgs{.logits = x.view(), .targets = targets.view(), .stats = of_rows}); }) ==
            "");
      CrossEntropyArgs args{.logits = x.view(), .targets = targets.view(), .stats = stats.view(), .losses = losses.view(), .nll = nll.view()};
      args.write_gradient = true;
      args.weights = weights.view();
      CHECK(wasted("", [&] { run(cross_entropy, args); }) == "");
    }
  }
}

TEST_CASE("rope of aligned heads moves whole sectors", "[access]") {
  for (DType type : {DType::f32, DType::bf16}) {
    for (const int64_t d : {64, 128}) {
      Buffer x(type, {2, 16, 3, d}), out(type, {2, 16, 3, d}), table(DType::f32, {16, d});
      x.normal(1);
      table.normal(2);
      INFO(name_of(type) << ", D " << d);
      // A unit is 16 bytes of x; beside bf16 those of the table, which is in the cache, are read by half sectors.
      const std::vector<Factor> factors{{"map.cuh", type == DType::bf16 ? 1.5 : 1}};
      CHECK(wasted(
                "",
                [&] {
                  run(rope, RopeArgs{x.view(), x.view(), table.view(), 0, 3});
                },
                factors) == "");
      CHECK(wasted(
                "",
                [&] {
                  run(rope, RopeArgs{x.view(), out.view(), table.view(), 0, 2});
                },
                factors) == "");
    }
  }
}

// In the tiles that are built for training, in the three products of a linear layer.
TEST_CASE("matrix products of aligned operands move whole sectors, and meet no bank conflict", "[access]") {
  struct Case {
    const char* candidate;
    DType type, out;
    int64_t m, n, k;
  };
  for (const Case& c : {Case{"simt", DType::f32, DType::f32, 128, 128, 48},
                        {"simt", DType::bf16, DType::bf16, 128, 128, 48},
                        {"simt", DType::f32, DType::f32, 32, 128, 48},
                        {"mma_sm80", DType::bf16, DType::bf16, 128, 256, 192},
                        {"mma_sm80", DType::bf16, DType::bf16, 128, 128, 192},
                        {"wgmma_sm90", DType::bf16, DType::bf16, 256, 256, 320},
                        {"wgmma_sm90", DType::bf16, DType::bf16, 128, 256, 320},
                        {"wgmma_sm90", DType::bf16, DType::bf16, 128, 128, 448}}) {
    for (const auto& [trans_a, trans_b] : {std::pair{false, true}, {false, false}, {true, false}}) {
      Buffer a(c.type, trans_a ? std::vector{c.k, c.m} : std::vector{c.m, c.k}), b(c.type, trans_b ? std::vector{c.n, c.k} : std::vector{c.k, c.n}),
          out(c.out, {c.m, c.n}), bias(c.type, {c.n}), preact(c.type, {c.m, c.n});
      a.normal(1);
      b.normal(2);
      bias.normal(3);
      INFO(c.candidate << " " << c.m << " x " << c.n << " x " << c.k << (trans_a ? ", A transposed" : "") << (trans_b ? ", B transposed" : ""));
      MatmulArgs args{.a = a.view(), .b = b.view(), .trans_a = trans_a, .trans_b = trans_b, .c = {out.view()}};
      // Not whole: what the epilogue stores in f32, by two stores; what gemm_simt reads of rows of 8 bf16 along K, half a sector each step.
      const std::vector<Factor> factors{{"vec.cuh", c.out == DType::f32 ? 2.0 : 1}, {"gemm_simt.cuh", c.type == DType::bf16 ? 2.0 : 1}};
      matmul.force(c.candidate);
      CHECK(wasted(
                "", [&] { run(matmul, args); }, factors) == "");
      args.bias = bias.view(), args.preact = preact.view(), args.epilogue = Epilogue::gelu;
      CHECK(wasted(
                "", [&] { run(matmul, args); }, factors) == "");
      matmul.force("");
    }
  }
}

TEST_CASE("attention of aligned heads moves whole sectors, and meets no bank conflict", "[access]") {
  for (const int64_t d : {64, 96, 128}) {
    const int64_t t = 160;
    const DType type = DType::bf16;
    Buffer q(type, {1, t, 2, d}), k(type, {1, t, 1, d}), v(type, {1, t, 1, d}), out(type, {1, t, 2, d}), lse(DType::f32, {1, 2, t}),
        d_out(type, {1, t, 2, d}), dq(type, {1, t, 2, d}), dk(type, {1, t, 1, d}), dv(type, {1, t, 1, d});
    for (Buffer* buffer : {&q, &k, &v, &d_out}) buffer->normal(1);
    INFO("D " << d);
    attention_forward.force("flash2_sm80");
    CHECK(wasted("", [&] {
            run(attention_forward,
                AttentionForwardArgs{.q = q.view(), .k = k.view(), .v = v.view(), .out = out.view(), .lse = lse.view(), .scale = 0.125f});
          }) == "");
    attention_forward.force("");
    AttentionBackwardArgs args{.q = q.view(), .k = k.view(), .v = v.view(), .out = out.view(), .lse = lse.view(), .d_out = d_out.view()};
    args.dq = dq.view(), args.dk = dk.view(), args.dv = dv.view(), args.scale = 0.125f;
    attention_backward.force("flash2_sm80");
    // Of every row of d_out times out one number is left, in the order of (B, H, T).
    CHECK(wasted("", [&] { run(attention_backward, args); }, {{"attention_delta.cuh", 2}}) == "");
    attention_backward.force("");
  }
}

}  // namespace
}  // namespace heddle::kernels
