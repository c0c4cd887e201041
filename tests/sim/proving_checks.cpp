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

namespace {

// A view of rows (token) that hold all heads, as a packed projection leaves them.
View heads(const View& rows, const AttentionCase& c, int64_t count) {
  View v = rows;
  v.rank = 4;
  v.shape = {c.b, rows.shape[1], count, c.d};
  v.stride = {rows.stride[0], rows.stride[1], c.d, 1};
  return v;
}

// Documents of 37 tokens, the first shorter.
Buffer documents_of(const AttentionCase& c) {
  Buffer start(DType::i32, {c.b, c.t});
  start.fill([&](int64_t i) { return i % c.t < 20 ? 0.0 : static_cast<double>((i % c.t - 20) / 37 * 37 + 20); });
  return start;
}

// A score is off by its D roundings and moves its probability by as much; sums run over S keys.
double probability_error(const AttentionCase& c, const oracle::AttentionResult& want) {
  return 2 * gamma(static_cast<double>(c.d) + 8, DType::f32) * (want.score + 1) + gamma(static_cast<double>(c.s) + 16, DType::f32);
}

// Of results whose terms are off by `relative`, stored in bf16.
std::vector<double> bf16_bounds(const std::vector<double>& want, const std::vector<double>& magnitude, double relative) {
  std::vector<double> bounds(want.size());
  for (size_t i = 0; i < bounds.size(); ++i) {
    const double inside = relative * magnitude[i];
    bounds[i] = inside + unit_roundoff(DType::bf16) * (std::abs(want[i]) + inside);
  }
  return bounds;
}

}  // namespace

std::string check_attention(const AttentionCase& c, const Once<oracle::AttentionResult>& memory) {
  Buffer q = random_bf16({c.b, c.t, c.h * c.d}, 1), k = random_bf16({c.b, c.s, c.kv * c.d}, 2), v = random_bf16({c.b, c.s, c.kv * c.d}, 3);
  Buffer out(DType::bf16, {c.b, c.t, c.h * c.d}, aligned(0)), lse(DType::f32, {c.b, c.h, c.t}), start = documents_of(c);
  AttentionForwardArgs args{
      .q = heads(q.view(), c, c.h), .k = heads(k.view(), c, c.kv), .v = heads(v.view(), c, c.kv), .out = heads(out.view(), c, c.h)};
  args.lse = lse.view();
  if (c.documents) args.document_start = start.view();
  args.scale = 1 / std::sqrt(static_cast<float>(c.d));
  args.window = c.window;
  const oracle::AttentionResult& want =
      once(memory, [&] { return oracle::attention(args.q, args.k, args.v, args.document_start, args.scale, args.window); });

  OnDevice device_q(q), device_k(k), device_v(v), device_out(out), device_lse(lse), device_start(start);
  AttentionForwardArgs on_device = args;
  on_device.q = heads(device_q.view(), c, c.h);
  on_device.k = heads(device_k.view(), c, c.kv);
  on_device.v = heads(device_v.view(), c, c.kv);
  on_device.out = heads(device_out.view(), c, c.h);
  on_device.lse = device_lse.view();
  if (c.documents) on_device.document_start = device_start.view();
  c.run(on_device);
  device_out.fetch();
  device_lse.fetch();

  // Probabilities are rounded to bf16 before they meet V.
  const double probability = probability_error(c, want);
  std::vector<double> lse_bounds(want.lse.size());
  for (size_t i = 0; i < lse_bounds.size(); ++i) lse_bounds[i] = probability + gamma(8, DType::f32) * std::abs(want.lse[i]);
  return device_out.guards() + device_lse.guards() +
         difference(args.out, want.out.data, bf16_bounds(want.out.data, want.out_magnitude.data, 2 * probability + unit_roundoff(DType::bf16))) +
         difference(lse.view(), want.lse, lse_bounds);
}

std::string check_attention_backward(const AttentionBackwardCase& of, const Once<oracle::AttentionResult>& memory) {
  const AttentionCase& c = of.shape;
  Buffer q = random_bf16({c.b, c.t, c.h * c.d}, 1), k = random_bf16({c.b, c.t, c.kv * c.d}, 2), v = random_bf16({c.b, c.t, c.kv * c.d}, 3);
  Buffer d_out = random_bf16({c.b, c.t, c.h * c.d}, 4), out(DType::bf16, {c.b, c.t, c.h * c.d}, aligned(0));
  Buffer lse(DType::f32, {c.b, c.h, c.t}, {.padding = 1}), start = documents_of(c);
  Buffer dq(DType::bf16, {c.b, c.t, c.h * c.d}, aligned(0)), dk(DType::bf16, {c.b, c.t, c.kv * c.d}, aligned(0)),
      dv(DType::bf16, {c.b, c.t, c.kv * c.d}, aligned(0));
  AttentionBackwardArgs args{
      .q = heads(q.view(), c, c.h), .k = heads(k.view(), c, c.kv), .v = heads(v.view(), c, c.kv), .d_out = heads(d_out.view(), c, c.h)};
  if (c.documents) args.document_start = start.view();
  args.scale = 1 / std::sqrt(static_cast<float>(c.d));
  args.window = c.window;
  const oracle::AttentionResult& want =
      once(memory, [&] { return oracle::attention(args.q, args.k, args.v, args.document_start, args.scale, args.window, args.d_out); });
  out.fill([&](int64_t i) { return want.out.data[static_cast<size_t>(i)]; });
  lse.fill([&](int64_t i) { return want.lse[static_cast<size_t>(i)]; });

  OnDevice device_q(q), device_k(k), device_v(v), device_out(out), device_lse(lse), device_d_out(d_out), device_start(start);
  OnDevice device_dq(dq), device_dk(dk), device_dv(dv);
  args.q = heads(device_q.view(), c, c.h);
  args.k = heads(device_k.view(), c, c.kv);
  args.v = heads(device_v.view(), c, c.kv);
  args.out = heads(device_out.view(), c, c.h);
  args.lse = device_lse.view();
  args.d_out = heads(device_d_out.view(), c, c.h);
  args.dq = heads(device_dq.view(), c, c.h);
  args.dk = heads(device_dk.view(), c, c.kv);
  args.dv = heads(device_dv.view(), c, c.kv);
  if (c.documents) args.document_start = device_start.view();
  Buffer scratch(DType::u8, {static_cast<int64_t>(of.scratch(args))});
  OnDevice device_scratch(scratch);
  args.scratch = std::span<std::byte>(device_scratch.view().data, static_cast<size_t>(device_scratch.view().numel()));
  of.run(args);
  std::string text;
  for (OnDevice* result : {&device_dq, &device_dk, &device_dv, &device_scratch}) {
    result->fetch();
    text += result->guards();
  }

  // lse comes rounded; probabilities and their gradients are rounded to bf16 before they meet an operand, and so was out, of which delta is made;
  // sums run over the queries of a group.
  double largest = 0;
  for (double value : want.lse) largest = std::max(largest, std::abs(value));
  const double probability =
      probability_error(c, want) + gamma(4, DType::f32) * (largest + 1) + gamma(static_cast<double>(c.t * c.h / c.kv + c.d) + 16, DType::f32);
  const double of_dv = 2 * probability + unit_roundoff(DType::bf16), of_dk = of_dv + unit_roundoff(DType::bf16);
  return text + difference(heads(dq.view(), c, c.h), want.dq.data, bf16_bounds(want.dq.data, want.dq_magnitude.data, of_dk)) +
         difference(heads(dk.view(), c, c.kv), want.dk.data, bf16_bounds(want.dk.data, want.dk_magnitude.data, of_dk)) +
         difference(heads(dv.view(), c, c.kv), want.dv.data, bf16_bounds(want.dv.data, want.dv_magnitude.data, of_dv));
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
