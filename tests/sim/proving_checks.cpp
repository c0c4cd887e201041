#include "tests/sim/proving_checks.h"

#include <cmath>

#include "tests/oracles/norm.h"

namespace heddle::test {

using namespace kernels;  // NOLINT: a test's own source

BufferOptions aligned(int64_t columns) {
  return {.padding = (8 - columns % 8) % 8 + 8};
}
Buffer random_bf16(std::vector<int64_t> shape, uint32_t seed) {
  const int64_t columns = shape.back();
  Buffer buffer(DType::bf16, std::move(shape), aligned(columns));
  buffer.normal(seed);
  return buffer;
}

std::string check_gemm(const GemmCase& c, const Once<oracle::MatmulResult>& memory) {
  const bool trans_a = c.product == Product::weight_gradient, trans_b = c.product == Product::forward;
  Buffer a = random_bf16(trans_a ? std::vector<int64_t>{c.k, c.m} : std::vector<int64_t>{c.m, c.k}, 1);
  Buffer b = random_bf16(trans_b ? std::vector<int64_t>{c.n, c.k} : std::vector<int64_t>{c.k, c.n}, 2);
  const DType out = c.f32_out || c.product == Product::weight_gradient ? DType::f32 : DType::bf16;
  Buffer result(out, {c.m, c.n}, aligned(c.n));
  if (c.accumulate) result.normal(3);
  MatmulArgs args{.a = a.view(), .b = b.view(), .trans_a = trans_a, .trans_b = trans_b, .c = {result.view(), c.accumulate}};
  const oracle::MatmulResult& want = once(memory, [&] { return oracle::matmul(args); });

  OnDevice device_a(a), device_b(b), device_c(result);
  args.a = device_a.view();
  args.b = device_b.view();
  args.c.to = device_c.view();
  c.run(args);
  device_c.fetch();
  return device_c.guards() + difference(result.view(), want.c, want.c_magnitude, Bound{out, static_cast<double>(c.k) + 8});
}

std::string check_attention(const AttentionCase& c, const Once<oracle::AttentionResult>& memory) {
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
  const oracle::AttentionResult& want =
      once(memory, [&] { return oracle::attention(args.q, args.k, args.v, args.document_start, args.scale, args.window); });

  OnDevice device_q(q), device_k(k), device_v(v), device_out(out), device_lse(lse), device_start(start);
  AttentionForwardArgs on_device = args;
  on_device.q = heads(device_q.view(), c.h);
  on_device.k = heads(device_k.view(), c.kv);
  on_device.v = heads(device_v.view(), c.kv);
  on_device.out = heads(device_out.view(), c.h);
  on_device.lse = device_lse.view();
  if (c.documents) on_device.document_start = device_start.view();
  c.run(on_device);
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

std::string check_norm(const NormCase& c) {
  const int64_t n = c.n, columns = c.columns;
  Buffer x = random_bf16({n, columns}, 1), residual = random_bf16({n, columns}, 2), gain = random_bf16({columns}, 3),
         bias = random_bf16({columns}, 4);
  Buffer sum(DType::bf16, {n, columns}, aligned(columns)), y(DType::bf16, {n, columns}, aligned(columns)), mean(DType::f32, {n}),
      rstd(DType::f32, {n});
  const bool layer = c.kind == NormKind::layer;
  const auto args_of = [&](auto&& view) {
    NormForwardArgs args{.kind = c.kind, .x = view(x)};
    if (c.everything) {
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
  c.run(args_of([&](Buffer& b) {
    for (size_t i = 0; i < std::size(all); ++i) {
      if (hosts[i] == &b) return all[i]->view();
    }
    return View{};
  }));
  std::string text;
  for (OnDevice* tensor : all) {
    tensor->fetch();
    text += tensor->guards();
  }
  const double terms = static_cast<double>(columns) + 10;
  text += difference(y.view(), want.y.want, want.y.magnitude, Bound{DType::bf16, terms});
  text += difference(rstd.view(), want.rstd.want, want.rstd.magnitude, Bound{DType::f32, terms});
  if (c.everything && layer) text += difference(mean.view(), want.mean.want, want.mean.magnitude, Bound{DType::f32, terms});
  if (c.everything && values(sum.view()) != want.sum) text += "the sum with the residual is not exact; ";
  return text;
}

}  // namespace heddle::test
