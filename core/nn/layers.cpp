#include "core/nn/layers.h"

#include <cmath>

#include "core/ops/common.h"
#include "kernels/api/pointwise.h"

namespace heddle {
namespace {

ParameterSpec weight_spec(std::vector<Part> parts, float init_std, ParamKind kind = ParamKind::matrix) {
  return {.kind = kind, .parts = std::move(parts), .init_std = init_std};
}
ParameterSpec bias_spec(std::vector<Part> parts) {
  return {.kind = ParamKind::bias, .parts = std::move(parts)};
}
ParameterSpec gain_spec(int64_t size) {
  return {.kind = ParamKind::gain, .parts = {{.global = {size}}}, .init_mean = 1};
}

}  // namespace

Linear::Linear(int64_t in, int64_t out, Options options) {
  std::string name;
  std::vector<Part> weights, biases;
  int64_t rows = 0;
  for (const auto& [part, part_rows] : options.stack) {
    name += part;
    weights.push_back({.name = part + ".weight", .global = {part_rows, in}});
    biases.push_back({.name = part + ".bias", .global = {part_rows}});
    rows += part_rows;
  }
  if (options.stack.empty()) {
    weights = {{.global = {out, in}}}, biases = {{.global = {out}}};
  } else {
    HEDDLE_CHECK(rows == out, "linear", "stacked projections of ", rows, " rows in all make up ", out);
    name += ".";
  }
  weight_ = add(name + "weight", weight_spec(std::move(weights), options.init_std, options.kind));
  if (options.bias) bias_ = add(name + "bias", bias_spec(std::move(biases)));
}

Norm::Norm(int64_t size, Options options) : options_(options) {
  if (!options.affine) return;
  gain_ = add("weight", gain_spec(size));
  if (options.bias && options.type == NormType::layer) bias_ = add("bias", bias_spec({{.global = {size}}}));
}

NormOutput Norm::forward(const Tensor& x, const Tensor& residual) const {
  if (options_.type == NormType::layer) return layer_norm(x, residual, tensor_or_none(gain_), tensor_or_none(bias_), options_.eps);
  return rms_norm(x, residual, tensor_or_none(gain_), options_.eps);
}

namespace {

CausalSelfAttention::Options resolved(CausalSelfAttention::Options o) {
  HEDDLE_CHECK(o.dim > 0 && o.heads > 0, "attention layer", "dim ", o.dim, ", heads ", o.heads);
  if (o.kv_heads == 0) o.kv_heads = o.heads;
  HEDDLE_CHECK(o.heads % o.kv_heads == 0, "attention layer", o.heads, " heads do not share ", o.kv_heads, " KV heads evenly");
  if (o.head_dim == 0) {
    HEDDLE_CHECK(o.dim % o.heads == 0, "attention layer", "dim ", o.dim, " is not divisible by ", o.heads, " heads");
    o.head_dim = o.dim / o.heads;
  }
  return o;
}

}  // namespace

CausalSelfAttention::CausalSelfAttention(Options options)
    : options_(resolved(options)),
      qkv_(options_.dim, (options_.heads + 2 * options_.kv_heads) * options_.head_dim,
           {.bias = options_.bias || options_.qkv_bias,
            .init_std = options_.init_std,
            .stack = {{"q", options_.heads * options_.head_dim},
                      {"k", options_.kv_heads * options_.head_dim},
                      {"v", options_.kv_heads * options_.head_dim}}}),
      out_(options_.heads * options_.head_dim, options_.dim, {.bias = options_.bias, .init_std = options_.out_init_std}) {
  add("", qkv_);
  if (options_.qk_norm && options_.qk_gain) {
    q_gain_ = add("q_norm", gain_spec(options_.head_dim));
    k_gain_ = add("k_norm", gain_spec(options_.head_dim));
  }
  add("out", out_);
}

Tensor CausalSelfAttention::project(const Tensor& x, const Tensor& rope, int64_t first) const {
  const int64_t h = options_.heads, hkv = options_.kv_heads, d = options_.head_dim;
  Tensor qkv = qkv_.forward(x);  // (B, T, (H + 2 Hkv) D)
  if (options_.qk_norm) qkv = qk_norm(qkv, h, hkv, tensor_or_none(q_gain_), tensor_or_none(k_gain_), options_.norm_eps);
  if (rope) {
    const Tensor heads = reshape(qkv, {x.size(0), x.size(1), h + 2 * hkv, d});  // (B, T, H + 2 Hkv, D)
    qkv = reshape(rope_(heads, rope, h + hkv, first), qkv.shape());
  }
  return qkv;
}

Tensor CausalSelfAttention::forward(const Tensor& x, const Tensor& residual, const Tensor& rope, const Tensor& document_start) const {
  const Tensor qkv = project(x, rope, 0);
  const Tensor y = attention(qkv, options_.heads, options_.kv_heads, {.window = options_.window, .document_start = document_start});  // (B, T, H D)
  return out_.forward(y, residual);                                                                                                   // (B, T, C)
}

Tensor CausalSelfAttention::forward(const Tensor& x, const Tensor& residual, const Tensor& rope, KvCache& cache) const {
  NoGradGuard no_grad;
  const int64_t h = options_.heads, hkv = options_.kv_heads, d = options_.head_dim, b = x.size(0), t = x.size(1), end = cache.length + t;
  HEDDLE_CHECK(cache.k && cache.k.size(1) >= end, "attention", "the KV cache holds ", cache.k ? cache.k.size(1) : 0, " tokens, ", end, " are needed");
  const Tensor qkv = reshape(project(x, rope, cache.length), {b, t, h + 2 * hkv, d});
  const auto store = [&](const Tensor& into, int64_t first_head) {
    const Tensor to = slice(into, 1, cache.length, end);  // (B, T, Hkv, D)
    launch(kernels::axpby, {.a = slice(qkv, 2, first_head, first_head + hkv).view(), .out = {to.view(), false}}, x.device());
    return slice(into, 1, 0, end);
  };
  const Tensor k = store(cache.k, h), v = store(cache.v, h + hkv);
  cache.length = end;
  const Tensor y = attention(contiguous(slice(qkv, 2, 0, h)), k, v, {.window = options_.window});  // (B, T, H, D)
  return out_.forward(reshape(y, {b, t, h * d}), residual);
}

}  // namespace heddle
