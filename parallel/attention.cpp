#include "parallel/attention.h"

#include "core/ops/common.h"
#include "kernels/api/pointwise.h"
#include "kernels/api/store_rows.h"

namespace heddle {
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

// Whole on every rank; each makes the gradient of its own heads.
ParameterSpec gain_spec(int64_t size) {
  return {.kind = ParamKind::gain, .parts = {{.global = {size}, .partial_gradient = true}}, .init_mean = 1};
}

}  // namespace

CausalSelfAttention::CausalSelfAttention(const Options& options, const MeshShape& mesh)
    : options_(resolved(options)),
      heads_(tp_share("heads", options_.heads, mesh).size()),
      kv_heads_(tp_share("KV heads", options_.kv_heads, mesh, true).size()),
      qkv_(options_.dim,
           {{.name = "q", .count = options_.heads * options_.head_dim, .unit = options_.head_dim},
            {.name = "k", .count = options_.kv_heads * options_.head_dim, .unit = options_.head_dim, .shared = true},
            {.name = "v", .count = options_.kv_heads * options_.head_dim, .unit = options_.head_dim, .shared = true}},
           {.bias = options_.bias || options_.qkv_bias, .init_std = options_.init_std}, mesh),
      out_(options_.heads * options_.head_dim, options_.dim, {.bias = options_.bias, .init_std = options_.out_init_std, .unit = options_.head_dim},
           mesh) {
  add("", qkv_);
  if (options_.qk_norm && options_.qk_gain) {
    q_gain_ = add("q_norm", gain_spec(options_.head_dim));
    k_gain_ = add("k_norm", gain_spec(options_.head_dim));
  }
  add("out", out_);
}

Tensor CausalSelfAttention::project(const Tensor& x, const Tensor& rope, int64_t first) const {
  const int64_t h = heads_, hkv = kv_heads_, d = options_.head_dim;
  Tensor qkv = qkv_.forward(x);  // (B, T, (H + 2 Hkv) D)
  if (options_.qk_norm) qkv = qk_norm(qkv, h, hkv, q_gain_, k_gain_, options_.norm_eps);
  if (rope) {
    const Tensor heads = reshape(qkv, {x.size(0), x.size(1), h + 2 * hkv, d});  // (B, T, H + 2 Hkv, D)
    qkv = reshape(rope_(heads, rope, h + hkv, first), qkv.shape());
  }
  return qkv;
}

Tensor CausalSelfAttention::forward(const Tensor& x, const Tensor& rope, const Tensor& document_start) const {
  const Tensor qkv = project(x, rope, 0);
  return out_.forward(attention(qkv, heads_, kv_heads_, {.window = options_.window, .document_start = document_start}));  // (B, T, C)
}

Tensor CausalSelfAttention::attend(const Tensor& qkv, const Tensor& kv, const AttentionOptions& options) const {
  const int64_t h = heads_, hkv = kv_heads_;
  return attention(slice(qkv, 2, 0, h), slice(kv, 2, 0, hkv), slice(kv, 2, hkv, 2 * hkv), options);
}

Tensor CausalSelfAttention::forward(const Tensor& x, const Tensor& rope, KvCache& cache) const {
  NoGradGuard no_grad;
  const int64_t h = heads_, hkv = kv_heads_, d = options_.head_dim, b = x.size(0), t = x.size(1), end = cache.length + t;
  HEDDLE_CHECK(cache.kv && cache.kv.size(1) >= end, "attention", "the KV cache holds ", cache.kv ? cache.kv.size(1) : 0, " tokens, ", end,
               " are needed");
  const Tensor qkv = reshape(project(x, rope, cache.length), {b, t, h + 2 * hkv, d});
  launch(kernels::axpby, {.a = slice(qkv, 2, h, h + 2 * hkv).view(), .out = {slice(cache.kv, 1, cache.length, end).view(), false}}, x.device());
  cache.length = end;
  const Tensor y = attend(qkv, slice(cache.kv, 1, 0, end), {.window = options_.window});  // (B, T, H, D)
  return out_.forward(reshape(y, {b, t, h * d}));
}

Tensor CausalSelfAttention::decode(const Tensor& x, const DecodePlaces& places, const KvCache& cache) const {
  NoGradGuard no_grad;
  const int64_t h = heads_, hkv = kv_heads_, d = options_.head_dim, b = x.size(1);
  HEDDLE_CHECK(x.size(0) == 1 && cache.kv && cache.kv.size(0) == b, "attention", "a token each of ", b, " texts, a KV cache of ",
               cache.kv ? cache.kv.size(0) : 0);
  const Tensor qkv = reshape(project(x, places.angles, 0), {b, 1, h + 2 * hkv, d});
  const Tensor fresh = slice(reshape(qkv, {b, (h + 2 * hkv) * d}), 1, h * d, (h + 2 * hkv) * d);  // (B, 2 Hkv D)
  const Tensor rows = reshape(cache.kv, {b * cache.kv.size(1), 2 * hkv * d});                     // (B capacity, 2 Hkv D)
  launch(kernels::store_rows, {.x = fresh.view(), .rows = places.row.view(), .out = rows.view()}, x.device());
  const Tensor y = attend(qkv, cache.kv, {.window = options_.window, .position = places.position});  // (B, 1, H, D)
  return out_.forward(reshape(y, {1, b, h * d}));
}

KvCache CausalSelfAttention::make_cache(int64_t batch, int64_t capacity) const {
  const Tensor& like = qkv_.weight().tensor();
  return {Tensor::empty({batch, capacity, 2 * kv_heads_, options_.head_dim}, like.dtype(), like.device()), 0};
}

}  // namespace heddle
