#include "tests/sim/proving_cases.h"

#include <cmath>
#include <random>

#include "tests/oracles/attention.h"
#include "tests/oracles/matmul.h"
#include "tests/oracles/norm.h"
#include "tests/sim/proving_kernels.h"
#include "tests/support/buffer.h"

namespace heddle::test {
namespace {

using namespace kernels;  // NOLINT: a test's own source

// A Buffer's twin on the device, with its guards. fetch() brings it back.
class OnDevice {
 public:
  explicit OnDevice(Buffer& host) : host_(host), view_(host.view()) {
    const int64_t element = size_of(view_.dtype);
    int64_t extent = 1;
    for (int axis = 0; axis < view_.rank; ++axis) extent += (view_.shape[axis] - 1) * view_.stride[axis];
    first_ = view_.data - kGuard * element;
    bytes_ = static_cast<size_t>((extent + 2 * kGuard) * element);
    data_ = device_allocate(bytes_);
    copy_to_device(data_, first_, bytes_);
    view_.data = data_ + kGuard * element;
  }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() { device_free(data_); }

  const View& view() const { return view_; }
  void fetch() { copy_to_host(first_, data_, bytes_); }
  std::string guards() const { return host_.guards_intact() ? "" : "memory outside the result was written; "; }

 private:
  static constexpr int64_t kGuard = 64;  // elements before and after the view, as in Buffer
  Buffer& host_;
  View view_;
  std::byte* first_;
  std::byte* data_ = nullptr;
  size_t bytes_ = 0;
};

// Elements that make the next row start at a multiple of 16 bytes, and one stretch of 16 bytes that nobody may touch.
BufferOptions aligned(int64_t columns) {
  return {.padding = (8 - columns % 8) % 8 + 8};
}
Buffer random_bf16(std::vector<int64_t> shape, uint32_t seed) {
  const int64_t columns = shape.back();
  Buffer buffer(DType::bf16, std::move(shape), aligned(columns));
  buffer.normal(seed);
  return buffer;
}

// ---- matrix products ----

enum class Product { forward, input_gradient, weight_gradient };
constexpr const char* kProductNames[] = {"forward", "input_gradient", "weight_gradient"};

struct GemmCase {
  Product product = Product::forward;
  int64_t m = 64, n = 64, k = 64;
  bool accumulate = false;
  // Runs on device views; args.c is the device's.
  std::function<void(const MatmulArgs&)> run;
};

std::string check_gemm(const GemmCase& c) {
  const bool trans_a = c.product == Product::weight_gradient, trans_b = c.product == Product::forward;
  Buffer a = random_bf16(trans_a ? std::vector<int64_t>{c.k, c.m} : std::vector<int64_t>{c.m, c.k}, 1);
  Buffer b = random_bf16(trans_b ? std::vector<int64_t>{c.n, c.k} : std::vector<int64_t>{c.k, c.n}, 2);
  const DType out = c.product == Product::weight_gradient ? DType::f32 : DType::bf16;
  Buffer result(out, {c.m, c.n}, aligned(c.n));
  if (c.accumulate) result.normal(3);
  MatmulArgs args{.a = a.view(), .b = b.view(), .trans_a = trans_a, .trans_b = trans_b, .c = {result.view(), c.accumulate}};
  const oracle::MatmulResult want = oracle::matmul(args);

  OnDevice device_a(a), device_b(b), device_c(result);
  args.a = device_a.view();
  args.b = device_b.view();
  args.c.to = device_c.view();
  c.run(args);
  device_c.fetch();
  return device_c.guards() + difference(result.view(), want.c, want.c_magnitude, Bound{out, static_cast<double>(c.k) + 8});
}

ProvingCase gemm_sm80_case(const char* tile_name, Sm80Tile tile, Product product, int64_t m, int64_t n, int64_t k, bool accumulate = false) {
  const std::string name =
      concat("gemm_sm80 ", tile_name, " ", kProductNames[static_cast<int>(product)], " ", m, " x ", n, " x ", k, accumulate ? " accumulated" : "");
  const auto run = [tile](const MatmulArgs& args) { gemm_sm80(tile, args); };
  return {name, 80, [=] { return check_gemm({product, m, n, k, accumulate, run}); }};
}

// Weight gradients of the Hopper kernel add to what is there.
ProvingCase gemm_sm90_case(const char* tile_name, Sm90Tile tile, Product product, int64_t m, int64_t n, int64_t k, int blocks, int splits = 1) {
  const std::string name = concat("gemm_sm90 ", tile_name, " ", kProductNames[static_cast<int>(product)], " ", m, " x ", n, " x ", k, ", ", blocks,
                                  " blocks, K in ", splits);
  const auto run = [=](const MatmulArgs& args) { gemm_sm90(tile, args, blocks, splits); };
  return {name, 90, [=] { return check_gemm({product, m, n, k, product == Product::weight_gradient, run}); }};
}

// ---- attention ----

struct AttentionCase {
  int64_t b = 1, t = 1, s = 1, h = 1, kv = 1, d = 64;
  int64_t window = 0;
  bool documents = false;
};

std::string check_attention(const AttentionCase& c) {
  // q, k and v are views of rows (token) that hold all heads, as a packed projection leaves them.
  const auto heads = [&](const View& rows, int64_t count) {
    View v = rows;
    v.rank = 4;
    v.shape = {c.b, rows.shape[1], count, c.d};
    v.stride = {rows.stride[0], rows.stride[1], c.d, 1};
    return v;
  };
  Buffer q = random_bf16({c.b, c.t, c.h * c.d}, 1), k = random_bf16({c.b, c.s, c.kv * c.d}, 2), v = random_bf16({c.b, c.s, c.kv * c.d}, 3);
  Buffer out(DType::bf16, {c.b, c.t, c.h * c.d}, aligned(0)), lse(DType::f32, {c.b, c.h, c.t}), start(DType::i32, {c.b, c.t});
  // Documents of 37 tokens, the first shorter.
  start.fill([&](int64_t i) { return i % c.t < 20 ? 0.0 : static_cast<double>((i % c.t - 20) / 37 * 37 + 20); });
  AttentionForwardArgs args{.q = heads(q.view(), c.h), .k = heads(k.view(), c.kv), .v = heads(v.view(), c.kv), .out = heads(out.view(), c.h)};
  args.lse = lse.view();
  if (c.documents) args.document_start = start.view();
  args.scale = 1 / std::sqrt(static_cast<float>(c.d));
  args.window = c.window;
  const oracle::AttentionResult want = oracle::attention(args.q, args.k, args.v, args.document_start, args.scale, args.window);

  OnDevice device_q(q), device_k(k), device_v(v), device_out(out), device_lse(lse), device_start(start);
  AttentionForwardArgs on_device = args;
  on_device.q = heads(device_q.view(), c.h);
  on_device.k = heads(device_k.view(), c.kv);
  on_device.v = heads(device_v.view(), c.kv);
  on_device.out = heads(device_out.view(), c.h);
  on_device.lse = device_lse.view();
  if (c.documents) on_device.document_start = device_start.view();
  attention(on_device);
  device_out.fetch();
  device_lse.fetch();

  // A score is off by its D roundings and moves its probability by as much; probabilities are rounded to bf16 before they meet V, sums run over S
  // keys.
  const double score_error = gamma(static_cast<double>(c.d) + 8, DType::f32) * (want.score + 1);
  const double probability_error = 2 * score_error + gamma(static_cast<double>(c.s) + 16, DType::f32);
  std::vector<double> out_bounds(want.out.data.size()), lse_bounds(want.lse.size());
  for (size_t i = 0; i < out_bounds.size(); ++i) {
    const double inside = (2 * probability_error + unit_roundoff(DType::bf16)) * want.out_magnitude.data[i];
    out_bounds[i] = inside + unit_roundoff(DType::bf16) * (std::abs(want.out.data[i]) + inside);
  }
  for (size_t i = 0; i < lse_bounds.size(); ++i) lse_bounds[i] = probability_error + gamma(8, DType::f32) * std::abs(want.lse[i]);
  return device_out.guards() + device_lse.guards() + difference(args.out, want.out.data, out_bounds) + difference(lse.view(), want.lse, lse_bounds);
}

ProvingCase attention_case(const AttentionCase& c) {
  const std::string name = concat("attention_fwd_sm80 B ", c.b, " T ", c.t, " S ", c.s, " H ", c.h, "/", c.kv, " D ", c.d, " window ", c.window,
                                  c.documents ? " documents" : "");
  return {name, 80, [c] { return check_attention(c); }};
}

// ---- rows ----

std::string check_norm(NormKind kind, int64_t n, int64_t columns, bool everything, int blocks) {
  Buffer x = random_bf16({n, columns}, 1), residual = random_bf16({n, columns}, 2), gain = random_bf16({columns}, 3),
         bias = random_bf16({columns}, 4);
  Buffer sum(DType::bf16, {n, columns}, aligned(columns)), y(DType::bf16, {n, columns}, aligned(columns)), mean(DType::f32, {n}),
      rstd(DType::f32, {n});
  const bool layer = kind == NormKind::layer;
  const auto args_of = [&](auto&& view) {
    NormForwardArgs args{.kind = kind, .x = view(x)};
    if (everything) {
      args.residual = view(residual);
      args.gain = view(gain);
      args.bias = view(bias);
      args.sum = view(sum);
      if (layer) args.mean = view(mean);
    }
    args.y = view(y);
    args.rstd = view(rstd);
    return args;
  };
  const oracle::NormResult want = oracle::norm_forward(args_of([](Buffer& b) { return b.view(); }));
  OnDevice device_x(x), device_residual(residual), device_gain(gain), device_bias(bias), device_sum(sum), device_y(y), device_mean(mean),
      device_rstd(rstd);
  OnDevice* all[] = {&device_x, &device_residual, &device_gain, &device_bias, &device_sum, &device_y, &device_mean, &device_rstd};
  Buffer* hosts[] = {&x, &residual, &gain, &bias, &sum, &y, &mean, &rstd};
  norm_rows(args_of([&](Buffer& b) {
              for (size_t i = 0; i < std::size(all); ++i) {
                if (hosts[i] == &b) return all[i]->view();
              }
              return View{};
            }),
            blocks);
  std::string text;
  for (OnDevice* tensor : all) {
    tensor->fetch();
    text += tensor->guards();
  }
  const double terms = static_cast<double>(columns) + 10;
  text += difference(y.view(), want.y.want, want.y.magnitude, Bound{DType::bf16, terms});
  text += difference(rstd.view(), want.rstd.want, want.rstd.magnitude, Bound{DType::f32, terms});
  if (everything && layer) text += difference(mean.view(), want.mean.want, want.mean.magnitude, Bound{DType::f32, terms});
  if (everything && values(sum.view()) != want.sum) text += "the sum with the residual is not exact; ";
  return text;
}

ProvingCase norm_case(NormKind kind, int64_t n, int64_t columns, bool everything, int blocks) {
  const std::string name = concat("norm_forward ", kind == NormKind::layer ? "layer" : "rms", " (", n, ", ", columns, ")",
                                  everything ? " with residual, gain, bias" : "", ", ", blocks, " blocks");
  return {name, 80, [=] { return check_norm(kind, n, columns, everything, blocks); }};
}

std::string check_sum(int64_t n, bool squares, bool accumulate) {
  Buffer x(DType::bf16, {n}), out(DType::f32, {1}), scratch(DType::u8, {static_cast<int64_t>(cuda::grid_sum_scratch(n))});
  x.normal(1, 0.25);
  out.fill([](int64_t) { return 3; });
  scratch.fill([](int64_t) { return 0; });
  constexpr double kScale = 0.5;
  double want = 0, size = accumulate ? 3 : 0;
  for (double value : values(x.view())) {
    const double term = kScale * (squares ? value * value : value);
    want += term;
    size += std::abs(term);
  }
  std::string text;
  OnDevice device_x(x), device_out(out), device_scratch(scratch);
  const std::span<std::byte> scratch_bytes(device_scratch.view().data, static_cast<size_t>(device_scratch.view().numel()));
  for (int launch = 1; launch <= 2; ++launch) {  // the second shows that the counter was put back
    cuda::grid_sum({device_x.view(), {device_out.view(), accumulate}, kScale, squares, scratch_bytes}, Stream{});
    device_out.fetch();
    const double expected = accumulate ? 3 + launch * want : want;
    // Eight sums a thread, blocks of 256, at most 1024 blocks: no addend passes more roundings than this.
    const double roundings = static_cast<double>(n) / (8 * 256 * 1024) + 64;
    text += difference(out.view(), {expected}, {launch * size + 3}, Bound{DType::f32, roundings});
  }
  return text + device_out.guards();
}

ProvingCase sum_case(int64_t n, bool squares, bool accumulate) {
  return {concat("grid_sum of ", n, squares ? " squares" : "", accumulate ? " accumulated" : ""), 80,
          [=] { return check_sum(n, squares, accumulate); }};
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
  // 3 stages of 64.
  for (Product product : {kForward, kInput, kWeight}) {
    cases.push_back(gemm_sm90_case("small", Sm90Tile::small, product, 128, 128, 640, 2));  // two tiles for each block
    cases.push_back(gemm_sm90_case("small", Sm90Tile::small, product, 70, 72, 610, 3));
    cases.push_back(gemm_sm90_case("small", Sm90Tile::small, product, 3, 9, 5, 8));
    cases.push_back(gemm_sm90_case("cluster", Sm90Tile::cluster, product, 256, 136, 640, 2));
    cases.push_back(gemm_sm90_case("cluster", Sm90Tile::cluster, product, 300, 250, 200, 4));
    cases.push_back(gemm_sm90_case("cluster", Sm90Tile::cluster, product, 100, 72, 64, 4));  // one block of the pair has nothing to store
  }
  cases.push_back(gemm_sm90_case("small", Sm90Tile::small, kWeight, 130, 70, 800, 4, 3));
  cases.push_back(gemm_sm90_case("small", Sm90Tile::small, kWeight, 64, 64, 128, 4, 3));  // a part without anything to add
  cases.push_back(gemm_sm90_case("tall", Sm90Tile::tall, kForward, 200, 72, 450, 2));
  cases.push_back(gemm_sm90_case("large", Sm90Tile::large, kForward, 260, 264, 832, 2));

  cases.push_back(attention_case({.t = 256, .s = 256, .h = 2, .kv = 2, .d = 64}));
  cases.push_back(attention_case({.b = 2, .t = 200, .s = 200, .h = 4, .kv = 2, .d = 64}));
  cases.push_back(attention_case({.t = 300, .s = 300, .h = 2, .kv = 1, .d = 128}));
  cases.push_back(attention_case({.b = 2, .t = 1, .s = 133, .h = 2, .kv = 1, .d = 64}));
  cases.push_back(attention_case({.t = 70, .s = 333, .h = 1, .kv = 1, .d = 128}));
  cases.push_back(attention_case({.t = 290, .s = 290, .h = 1, .kv = 1, .d = 64, .window = 50}));
  cases.push_back(attention_case({.b = 2, .t = 270, .s = 270, .h = 1, .kv = 1, .d = 64, .documents = true}));
  cases.push_back(attention_case({.t = 270, .s = 270, .h = 1, .kv = 1, .d = 128, .window = 100, .documents = true}));

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
  return {gemm_sm80_case("small", Sm80Tile::small, Product::forward, 64, 64, 320),
          gemm_sm90_case("small", Sm90Tile::small, Product::forward, 64, 128, 640, 1),
          gemm_sm90_case("cluster", Sm90Tile::cluster, Product::forward, 256, 128, 640, 2),
          attention_case({.t = 140, .s = 140, .h = 1, .kv = 1, .d = 64}),
          norm_case(NormKind::layer, 4, 1032, true, 2),
          sum_case(20000, true, false)};
}

}  // namespace heddle::test
