#include "tests/sim/proving_cases.h"

#include <cmath>
#include <span>

#include "tests/sim/proving_checks.h"
#include "tests/sim/proving_kernels.h"

namespace heddle::test {
namespace {

using namespace kernels;  // NOLINT: a test's own source

// ---- matrix products ----

constexpr const char* kProductNames[] = {"forward", "input_gradient", "weight_gradient"};

ProvingCase gemm_sm80_case(const char* tile_name, Sm80Tile tile, Product product, int64_t m, int64_t n, int64_t k, bool accumulate = false) {
  const std::string name =
      concat("gemm_sm80 ", tile_name, " ", kProductNames[static_cast<int>(product)], " ", m, " x ", n, " x ", k, accumulate ? " accumulated" : "");
  const auto run = [tile](const MatmulArgs& args) { gemm_sm80(tile, args); };
  const auto memory = std::make_shared<std::optional<oracle::MatmulResult>>();
  return {name, 80, [=] { return check_gemm({product, m, n, k, accumulate, false, run}, memory); }};
}

ProvingCase gemm_simt_case(Product product, int64_t m, int64_t n, int64_t k) {
  const std::string name = concat("gemm_simt ", kProductNames[static_cast<int>(product)], " ", m, " x ", n, " x ", k);
  const auto memory = std::make_shared<std::optional<oracle::MatmulResult>>();
  return {name, 80, [=] { return check_gemm({product, m, n, k, false, false, gemm_simt}, memory); }};
}

// Weight gradients of the Hopper kernel add to what is there. f32 results of the others need the whole epilogue.
ProvingCase gemm_sm90_case(const char* tile_name, Sm90Tile tile, Product product, int64_t m, int64_t n, int64_t k, int blocks, int splits = 1,
                           bool f32_out = false) {
  const std::string name = concat("gemm_sm90 ", tile_name, " ", kProductNames[static_cast<int>(product)], " ", m, " x ", n, " x ", k, ", ", blocks,
                                  " blocks, K in ", splits, f32_out ? ", whole epilogue" : "");
  const auto run = [=](const MatmulArgs& args) { gemm_sm90(tile, args, blocks, splits); };
  const auto memory = std::make_shared<std::optional<oracle::MatmulResult>>();
  return {name, 90, [=] { return check_gemm({product, m, n, k, product == Product::weight_gradient, f32_out, run}, memory); }};
}

// ---- attention ----

ProvingCase attention_case(AttentionCase c) {
  c.run = attention;
  const std::string name = concat("attention_fwd_sm80 B ", c.b, " T ", c.t, " S ", c.s, " H ", c.h, "/", c.kv, " D ", c.d, " window ", c.window,
                                  c.documents ? " documents" : "");
  const auto memory = std::make_shared<std::optional<oracle::AttentionResult>>();
  return {name, 80, [c, memory] { return check_attention(c, memory); }};
}

ProvingCase attention_backward_case(AttentionCase c) {
  c.s = c.t;
  const std::string name =
      concat("attention_bwd_sm80 B ", c.b, " T ", c.t, " H ", c.h, "/", c.kv, " D ", c.d, " window ", c.window, c.documents ? " documents" : "");
  const auto memory = std::make_shared<std::optional<oracle::AttentionResult>>();
  return {name, 80, [c, memory] { return check_attention_backward({c, attention_gradients_scratch, attention_gradients}, memory); }};
}

// ---- rows ----

ProvingCase norm_case(NormKind kind, int64_t n, int64_t columns, bool everything, unsigned blocks) {
  const std::string name = concat("norm_forward ", kind == NormKind::layer ? "layer" : "rms", " (", n, ", ", columns, ")",
                                  everything ? " with residual, gain, bias" : "", ", ", blocks, " blocks");
  return {name, 80, [=] { return check_norm({kind, n, columns, everything, [=](const NormForwardArgs& args) { norm_rows(args, blocks); }}); }};
}

std::string check_sum(int64_t n, bool squares, bool accumulate) {
  constexpr double kScale = 0.5;
  Buffer x(DType::bf16, {n}), out(DType::f32, {1}), zeroed(DType::u8, {16});
  SumArgs args{.x = x.view(), .out = {out.view(), accumulate}, .scale = kScale, .squares = squares};
  Buffer scratch(DType::u8, {static_cast<int64_t>(sum_scratch(args))});
  x.normal(1, 0.25);
  out.fill([](int64_t) { return 3; });
  zeroed.fill([](int64_t) { return 0; });
  double want = 0, size = accumulate ? 3 : 0;
  for (double value : values(x.view())) {
    const double term = kScale * (squares ? value * value : value);
    want += term;
    size += std::abs(term);
  }
  std::string text;
  OnDevice device_x(x), device_out(out), device_scratch(scratch), device_zeroed(zeroed);
  const auto bytes_of = [](const OnDevice& on) { return std::span<std::byte>(on.view().data, static_cast<size_t>(on.view().numel())); };
  args.x = device_x.view();
  args.out.to = device_out.view();
  args.scratch = bytes_of(device_scratch);
  args.zeroed = bytes_of(device_zeroed);
  for (int launch = 1; launch <= 2; ++launch) {  // the second shows that the ticket was put back
    sum_up(args);
    device_out.fetch();
    const double expected = accumulate ? 3 + launch * want : want;
    text += difference(out.view(), {expected}, {launch * size + 3}, Bound{DType::f32, 8});  // a square, five levels of a tree, the result each time
  }
  return text + device_out.guards();
}

ProvingCase sum_case(int64_t n, bool squares, bool accumulate) {
  return {concat("sum of ", n, squares ? " squares" : "", accumulate ? " accumulated" : ""), 80, [=] { return check_sum(n, squares, accumulate); }};
}

}  // namespace

std::vector<ProvingCase> proving_cases() {
  constexpr Product kForward = Product::forward, kInput = Product::input_gradient, kWeight = Product::weight_gradient;
  std::vector<ProvingCase> cases;
  // 3 stages of 32: K of 320 goes three times round the ring.
  for (Product product : {kForward, kInput, kWeight}) {
    cases.push_back(gemm_sm80_case("small", Sm80Tile::small, product, 128, 64, 320));
    cases.push_back(gemm_sm80_case("small", Sm80Tile::small, product, 130, 72, 333));
    cases.push_back(gemm_sm80_case("small", Sm80Tile::small, product, 5, 9, 7, true));
    cases.push_back(gemm_sm80_case("small", Sm80Tile::small, product, 64, 200, 40));
  }
  cases.push_back(gemm_sm80_case("deep_k", Sm80Tile::deep_k, kForward, 70, 100, 450, true));
  cases.push_back(gemm_sm80_case("large", Sm80Tile::large, kForward, 136, 264, 400));
  cases.push_back(gemm_sm80_case("large", Sm80Tile::large, kWeight, 120, 250, 100, true));
  for (Product product : {kForward, kInput, kWeight}) cases.push_back(gemm_simt_case(product, 130, 200, 100));
  // 3 stages of 64.
  for (Product product : {kForward, kInput, kWeight}) {
    cases.push_back(gemm_sm90_case("small", Sm90Tile::small, product, 128, 128, 640, 2));  // two tiles for each block
    cases.push_back(gemm_sm90_case("small", Sm90Tile::small, product, 70, 72, 610, 3));
    cases.push_back(gemm_sm90_case("small", Sm90Tile::small, product, 3, 9, 5, 8));
    cases.push_back(gemm_sm90_case("cluster", Sm90Tile::cluster, product, 256, 136, 640, 2));
    cases.push_back(gemm_sm90_case("cluster", Sm90Tile::cluster, product, 200, 250, 200, 4));
    cases.push_back(gemm_sm90_case("cluster", Sm90Tile::cluster, product, 100, 72, 64, 4));  // one block of the pair has nothing to store
  }
  cases.push_back(gemm_sm90_case("small", Sm90Tile::small, kWeight, 130, 70, 800, 4, 3));
  cases.push_back(gemm_sm90_case("cluster", Sm90Tile::cluster, kWeight, 200, 72, 300, 4, 2));
  cases.push_back(gemm_sm90_case("small", Sm90Tile::small, kForward, 130, 75, 500, 4, 3));  // parts by the whole epilogue
  cases.push_back(gemm_sm90_case("small", Sm90Tile::small, kForward, 130, 200, 333, 2, 1, true));
  cases.push_back(gemm_sm90_case("cluster", Sm90Tile::cluster, kForward, 300, 136, 200, 2, 1, true));
  cases.push_back(gemm_sm90_case("tall", Sm90Tile::tall, kForward, 200, 72, 130, 2, 1, true));
  cases.push_back(gemm_sm90_case("tall", Sm90Tile::tall, kForward, 200, 72, 450, 2));
  cases.push_back(gemm_sm90_case("large", Sm90Tile::large, kForward, 136, 264, 832, 2));

  cases.push_back(attention_case({.t = 256, .s = 256, .h = 2, .kv = 2, .d = 64}));
  cases.push_back(attention_case({.b = 2, .t = 200, .s = 200, .h = 4, .kv = 2, .d = 64}));
  cases.push_back(attention_case({.t = 300, .s = 300, .h = 2, .kv = 1, .d = 128}));
  cases.push_back(attention_case({.b = 2, .t = 1, .s = 133, .h = 2, .kv = 1, .d = 64}));
  cases.push_back(attention_case({.t = 70, .s = 333, .h = 1, .kv = 1, .d = 128}));
  cases.push_back(attention_case({.t = 290, .s = 290, .h = 1, .kv = 1, .d = 64, .window = 50}));
  cases.push_back(attention_case({.b = 2, .t = 270, .s = 270, .h = 1, .kv = 1, .d = 64, .documents = true}));
  cases.push_back(attention_case({.t = 270, .s = 270, .h = 1, .kv = 1, .d = 128, .window = 100, .documents = true}));

  cases.push_back(attention_case({.t = 200, .s = 200, .h = 2, .kv = 1, .d = 96}));
  cases.push_back(attention_case({.b = 2, .t = 5, .s = 140, .h = 1, .kv = 1, .d = 96, .window = 60}));

  // Steps of 32 or 64, two or four stages; in the keys' pass each head of a group in turn.
  cases.push_back(attention_backward_case({.t = 256, .h = 2, .kv = 2, .d = 64}));
  cases.push_back(attention_backward_case({.b = 2, .t = 200, .h = 4, .kv = 2, .d = 64}));
  cases.push_back(attention_backward_case({.t = 300, .h = 2, .kv = 1, .d = 128}));
  cases.push_back(attention_backward_case({.t = 200, .h = 3, .kv = 1, .d = 96}));
  cases.push_back(attention_backward_case({.b = 3, .t = 1, .h = 2, .kv = 1, .d = 64}));
  cases.push_back(attention_backward_case({.b = 2, .t = 17, .h = 1, .kv = 1, .d = 128}));
  cases.push_back(attention_backward_case({.t = 290, .h = 1, .kv = 1, .d = 64, .window = 50}));
  cases.push_back(attention_backward_case({.b = 2, .t = 270, .h = 1, .kv = 1, .d = 64, .documents = true}));
  cases.push_back(attention_backward_case({.t = 270, .h = 1, .kv = 1, .d = 128, .window = 100, .documents = true}));
  cases.push_back(attention_backward_case({.t = 140, .h = 1, .kv = 1, .d = 96, .window = 30, .documents = true}));

  for (NormKind kind : {NormKind::layer, NormKind::rms}) {
    cases.push_back(norm_case(kind, 9, 64, false, 1));    // more rows than a block has warps
    cases.push_back(norm_case(kind, 6, 776, true, 100));  // four vectors a lane, the last not full
    cases.push_back(norm_case(kind, 7, 1032, true, 2));   // a block per row, rows in turn
    cases.push_back(norm_case(kind, 3, 8192, true, 3));
    cases.push_back(norm_case(kind, 5, 2056, false, 2));
  }
  cases.push_back(sum_case(100000, true, false));
  cases.push_back(sum_case(8193, false, true));
  cases.push_back(sum_case(5, true, true));
  return cases;
}

std::vector<ProvingCase> short_proving_cases() {
  return {gemm_simt_case(Product::forward, 64, 128, 40),
          gemm_sm80_case("small", Sm80Tile::small, Product::forward, 64, 64, 320),
          gemm_sm80_case("large", Sm80Tile::large, Product::forward, 64, 64, 40),       // a warp's rows are staged in two parts
          gemm_sm90_case("small", Sm90Tile::small, Product::forward, 64, 200, 256, 1),  // four tiles: the buffers of results are used again
          gemm_sm90_case("small", Sm90Tile::small, Product::forward, 64, 128, 256, 1, 1, true),
          gemm_sm90_case("cluster", Sm90Tile::cluster, Product::forward, 256, 128, 640, 2),
          attention_case({.t = 140, .s = 140, .h = 1, .kv = 1, .d = 64}),
          attention_backward_case({.t = 200, .h = 2, .kv = 1, .d = 64, .documents = true}),
          norm_case(NormKind::layer, 4, 1032, true, 2),
          sum_case(20000, true, false)};
}

std::vector<ProvingCase> layout_proving_cases() {
  std::vector<ProvingCase> cases = short_proving_cases();
  for (Product product : {Product::input_gradient, Product::weight_gradient}) {
    cases.push_back(gemm_simt_case(product, 128, 128, 32));
    cases.push_back(gemm_sm80_case("small", Sm80Tile::small, product, 64, 64, 64));
  }
  // Not the f32 results of gemm_sm90: its source says why those do meet conflicts.
  cases.push_back(gemm_sm90_case("small", Sm90Tile::small, Product::input_gradient, 64, 64, 64, 1));
  cases.push_back(gemm_sm80_case("large", Sm80Tile::large, Product::forward, 128, 256, 64));
  cases.push_back(gemm_sm80_case("deep_k", Sm80Tile::deep_k, Product::forward, 64, 64, 128));
  for (int64_t d : {96, 128}) {
    cases.push_back(attention_case({.t = 40, .s = 40, .h = 1, .kv = 1, .d = d}));
    cases.push_back(attention_backward_case({.t = 70, .h = 1, .kv = 1, .d = d}));
  }
  return cases;
}

}  // namespace heddle::test
