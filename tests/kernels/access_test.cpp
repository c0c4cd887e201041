// What kernels ask of memory where everything is aligned: whole sectors, and no bank twice. Counted by the check flavour of the simulated machine;
// the others count nothing.
#include "kernels/api/attention.h"
#include "kernels/api/embedding.h"
#include "kernels/api/optimizer.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/random.h"
#include "kernels/api/reduce.h"
#include "kernels/api/sample.h"
#include "kernels/sim/check/check.h"
#include "kernels/sim/core/machine.h"
#include "tests/kernels/kernel_case.h"

namespace heddle::kernels {
namespace {

using test::Buffer;
using test::run;

// Transactions that f() needs beyond those for the number of its bytes, line by line, in the sources of this name. Lines of `factor.source` may need
// `factor.of_ideal` times the ideal.
struct Factor {
  std::string source;
  double of_ideal = 1;
};
template <class F>
std::string wasted(const std::string& source, const F& f, const Factor& factor = {"none"}) {
  if (!sim::checking) return "";
  sim::count_accesses(true);
  f();
  sim::count_accesses(false);
  std::string text;
  uint64_t counted = 0;
  for (const sim::AccessCount& count : sim::access_counts()) {
    if (count.file.find(source) == std::string::npos) continue;
    counted += count.transactions;
    const double allowed = count.file.find(factor.source) == std::string::npos ? 1 : factor.of_ideal;
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
      CHECK(wasted_of_memory("attention_decode.cuh", [&] {
              run(attention_forward, AttentionForwardArgs{.q = q.view(), .k = k.view(), .v = v.view(), .out = out.view(), .scale = 0.125f});
            }) == "");
    }
    Buffer logits(type, {1, 4096}), position(DType::i32, {1}), tokens(DType::i32, {1});
    logits.normal(4);
    position.put(0, 3);
    CHECK(wasted_of_memory("rows.cuh", [&] {
            run(sample, SampleArgs{.logits = logits.view(), .position = position.view(), .tokens = tokens.view(), .top_k = 50, .top_p = 0.9});
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
    CHECK(wasted(
              "",
              [&] {
                run(column_sum, ColumnSumArgs{x.view(), {totals.view()}, {}});
              },
              partials) == "");
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

}  // namespace
}  // namespace heddle::kernels
