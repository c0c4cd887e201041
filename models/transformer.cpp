#include "models/transformer.h"

#include <cmath>

#include "core/autograd/node.h"
#include "core/nn/recompute.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

void require(bool ok, const std::string& text) {
  if (!ok) fail("model", text, ExitCode::usage);
}

Norm::Options norm_options(const TransformerConfig& c) {
  return {.type = c.norm, .bias = c.bias, .affine = c.norm_affine, .eps = c.norm_eps};
}

// Residual branches add up over 2 layers of them; scaling their last projection keeps the stream's variance (GPT-2, Radford et al. 2019).
float out_std(const TransformerConfig& c) {
  return c.zero_init_out ? 0 : c.init_std / std::sqrt(2.0f * static_cast<float>(c.layers));
}

}  // namespace

Block::Block(const TransformerConfig& c, int64_t)
    : norm1_(c.dim, norm_options(c)),
      attn_({.dim = c.dim,
             .heads = c.heads,
             .kv_heads = c.kv_heads,
             .head_dim = c.head_dim,
             .bias = c.bias,
             .qkv_bias = c.qkv_bias,
             .qk_norm = c.qk_norm,
             .qk_gain = c.qk_gain,
             .window = c.window,
             .init_std = c.init_std,
             .out_init_std = out_std(c),
             .norm_eps = c.norm_eps}),
      norm2_(c.dim, norm_options(c)),
      mlp_({.kind = c.mlp, .dim = c.dim, .hidden = c.mlp_dim, .bias = c.bias, .init_std = c.init_std, .out_init_std = out_std(c)}) {
  add("norm1", norm1_);
  add("attn", attn_);
  add("norm2", norm2_);
  add("mlp", mlp_);
}

Tensor Block::forward(const Tensor& h, const Tensor& rope, const Tensor& document_start) const {
  const NormOutput a = norm1_.forward(h);                                                // (B, T, C)
  const NormOutput m = norm2_.forward(attn_.forward(a.y, a.sum, rope, document_start));  // (B, T, C)
  return mlp_.forward(m.y, m.sum);                                                       // (B, T, C)
}

Tensor Block::forward(const Tensor& h, const Tensor& rope, KvCache& cache) const {
  const NormOutput a = norm1_.forward(h);
  const NormOutput m = norm2_.forward(attn_.forward(a.y, a.sum, rope, cache));
  return mlp_.forward(m.y, m.sum);
}

Transformer::Transformer(const TransformerConfig& config) : config_(config.resolved()), norm_(config_.dim, norm_options(config_)) {
  const auto table = [&](ParamKind kind, int64_t rows) {
    return ParameterSpec{.kind = kind, .parts = {{.global = {rows, config_.dim}}}, .init_std = config_.init_std};
  };
  begin_bucket("embedding");
  tok_ = add("tok.weight", table(ParamKind::embedding, config_.vocab));
  if (config_.position == Position::learned) pos_ = add("pos.weight", table(ParamKind::embedding, config_.seq));
  for (int64_t i = 0; i < config_.layers; ++i) {
    blocks_.push_back(std::make_unique<Block>(config_, i));
    const std::string name = "blocks." + std::to_string(i);
    begin_bucket(name);
    add(name, *blocks_.back());
  }
  begin_bucket("norm");
  add("norm", norm_);
  begin_bucket("head");
  if (config_.tied) {
    tie("head.weight", tok_);
    head_ = tok_;
  } else {
    head_ = add("head.weight", table(ParamKind::head, config_.vocab));
  }
}

Tensor Transformer::rope_table_on(Device device) const {
  if (config_.position != Position::rope) return {};
  if (!rope_ || rope_.device() != device) rope_ = rope_table(config_.seq, config_.head_dim, config_.rope_theta, device);
  return rope_;
}

Tensor Transformer::hidden(const Tensor& tokens, const Tensor& document_start) const {
  HEDDLE_CHECK(tokens.rank() == 2 && tokens.size(1) <= config_.seq, "model", "tokens ", shape_text(tokens.shape()), " for sequences of at most ",
               config_.seq);
  Tensor h = embedding(tokens, tok_, tensor_or_none(pos_), document_start);  // (B, T, C)
  const Tensor rope = rope_table_on(h.device());
  for (const auto& block : blocks_) {
    const auto run = [&block = *block, rope, document_start](const Tensor& x) { return block.forward(x, rope, document_start); };
    h = config_.recompute ? recompute(*block, run, h) : run(h);
  }
  return norm_.forward(h).y;
}

Tensor Transformer::loss(const Tensor& tokens, const Tensor& targets, const Tensor& document_start, const LossOptions& options) const {
  return linear_cross_entropy(hidden(tokens, document_start), head_, targets, options);
}

Tensor Transformer::token_losses(const Tensor& tokens, const Tensor& targets, const Tensor& document_start) const {
  NoGradGuard no_grad;
  return heddle::token_losses(hidden(tokens, document_start), head_, targets);
}

Transformer::Cache Transformer::make_cache(int64_t batch, int64_t capacity) const {
  require(capacity <= config_.seq, concat("a context of ", capacity, " tokens; the model was built for ", config_.seq));
  const Tensor& like = tok_.tensor();
  Cache cache;
  for (int64_t i = 0; i < config_.layers; ++i) {
    const Shape shape{batch, capacity, config_.kv_heads, config_.head_dim};
    cache.layers.push_back({Tensor::empty(shape, like.dtype(), like.device()), Tensor::empty(shape, like.dtype(), like.device()), 0});
  }
  return cache;
}

Tensor Transformer::next_logits(const Tensor& tokens, Cache& cache) const {
  NoGradGuard no_grad;
  const int64_t first = cache.length(), t = tokens.size(1);
  HEDDLE_CHECK(first + t <= config_.seq, "model", first + t, " tokens; the model was built for ", config_.seq);
  const Tensor position = pos_ ? slice(pos_, 0, first, first + t) : Tensor();  // (T, C)
  Tensor h = embedding(tokens, tok_, position);                                // (B, T, C)
  const Tensor rope = rope_table_on(h.device());
  for (size_t i = 0; i < blocks_.size(); ++i) h = blocks_[i]->forward(h, rope, cache.layers[i]);
  const Tensor last = contiguous(slice(h, 1, t - 1, t));  // (B, 1, C)
  const Tensor y = norm_.forward(last).y;
  return linear(reshape(y, {tokens.size(0), config_.dim}), head_);  // (B, V)
}

}  // namespace heddle
