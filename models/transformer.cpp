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

VocabParallelOptions table_options(const TransformerConfig& c) {
  return {.vocab = c.vocab, .dim = c.dim, .init_std = c.init_std};
}

// Residual branches add up over 2 layers of them; scaling their last projection keeps the stream's variance (GPT-2, Radford et al. 2019).
float out_std(const TransformerConfig& c) {
  return c.zero_init_out ? 0 : c.init_std / std::sqrt(2.0f * static_cast<float>(c.layers));
}

}  // namespace

Block::Block(const TransformerConfig& c, const MeshShape& mesh)
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
             .norm_eps = c.norm_eps},
            mesh),
      norm2_(c.dim, norm_options(c)),
      mlp_({.kind = c.mlp, .dim = c.dim, .hidden = c.mlp_dim, .bias = c.bias, .init_std = c.init_std, .out_init_std = out_std(c)}, mesh) {
  add("norm1", norm1_);
  add("attn", attn_);
  add("norm2", norm2_);
  add("mlp", mlp_);
}

template <class Attend>
Residual Block::around(const Residual& h, const Attend& attend) const {
  const NormOutput a = norm1_.forward(h.stream, h.branch);  // (B, T, C)
  const NormOutput m = norm2_.forward(a.sum, attend(a.y));  // (B, T, C)
  return {m.sum, mlp_.forward(m.y)};
}

Residual Block::forward(const Residual& h, const Tensor& rope, const Tensor& document_start) const {
  return around(h, [&](const Tensor& x) { return attn_.forward(x, rope, document_start); });
}

Residual Block::forward(const Residual& h, const Tensor& rope, KvCache& cache) const {
  return around(h, [&](const Tensor& x) { return attn_.forward(x, rope, cache); });
}

Residual Block::decode(const Residual& h, const DecodePlaces& places, const KvCache& cache) const {
  return around(h, [&](const Tensor& x) { return attn_.decode(x, places, cache); });
}

Transformer::Transformer(const TransformerConfig& config, const MeshShape& mesh)
    : config_(config.resolved()),
      tok_(table_options(config_), mesh),
      norm_(config_.dim, norm_options(config_)),
      head_(config_.tied ? VocabParallelHead(tok_) : VocabParallelHead(table_options(config_), mesh)) {
  begin_bucket("embedding");
  add("tok", tok_);
  if (config_.position == Position::learned) {
    pos_ = add("pos.weight", {.kind = ParamKind::embedding, .parts = {{.global = {config_.seq, config_.dim}}}, .init_std = config_.init_std});
  }
  for (int64_t i = 0; i < config_.layers; ++i) {
    blocks_.push_back(std::make_unique<Block>(config_, mesh));
    const std::string name = "blocks." + std::to_string(i);
    begin_bucket(name);
    add(name, *blocks_.back());
  }
  begin_bucket("norm");
  add("norm", norm_);
  begin_bucket("head");
  add("head", head_);
}

Tensor Transformer::rope_table_on(Device device) const {
  if (config_.position != Position::rope) return {};
  if (!rope_ || rope_.device() != device) rope_ = rope_table(config_.seq, config_.head_dim, config_.rope_theta, device);
  return rope_;
}

Tensor Transformer::hidden(const Tensor& tokens, const Tensor& document_start) const {
  HEDDLE_CHECK(tokens.rank() == 2 && tokens.size(1) <= config_.seq, "model", "tokens ", shape_text(tokens.shape()), " for sequences of at most ",
               config_.seq);
  Residual h{tok_.forward(tokens, pos_, document_start), {}};
  const Tensor rope = rope_table_on(h.stream.device());
  for (const auto& block : blocks_) {
    if (!config_.recompute) {
      h = block->forward(h, rope, document_start);
      continue;
    }
    // Added before it is kept: one tensor a block, not two.
    const auto run = [&block = *block, rope, document_start](const Tensor& x) { return block.forward({x, {}}, rope, document_start).added(); };
    h = {recompute(*block, run, h.stream), {}};
  }
  return norm_.forward(h.stream, h.branch).y;
}

Tensor Transformer::loss(const Tensor& tokens, const Tensor& targets, const Tensor& document_start, const LossOptions& options) const {
  return head_.loss(hidden(tokens, document_start), targets, options);
}

Tensor Transformer::token_losses(const Tensor& tokens, const Tensor& targets, const Tensor& document_start) const {
  NoGradGuard no_grad;
  return head_.token_losses(hidden(tokens, document_start), targets);
}

Transformer::Cache Transformer::make_cache(int64_t batch, int64_t capacity) const {
  require(capacity <= config_.seq, concat("a context of ", capacity, " tokens; the model was built for ", config_.seq));
  Cache cache;
  for (const auto& block : blocks_) cache.layers.push_back(block->make_cache(batch, capacity));
  return cache;
}

Tensor Transformer::next_logits(const Tensor& tokens, Cache& cache) const {
  NoGradGuard no_grad;
  const int64_t first = cache.length(), t = tokens.size(1);
  HEDDLE_CHECK(first + t <= config_.seq, "model", first + t, " tokens; the model was built for ", config_.seq);
  const WeightUse table(pos_);
  const Tensor position = pos_ ? slice(table.values(), 0, first, first + t) : Tensor();  // (T, C)
  Residual h{tok_.forward(tokens, position), {}};
  const Tensor rope = rope_table_on(h.stream.device());
  for (size_t i = 0; i < blocks_.size(); ++i) h = blocks_[i]->forward(h, rope, cache.layers[i]);
  const Tensor last = contiguous(slice(h.added(), 1, t - 1, t));  // (B, 1, C)
  const Tensor y = norm_.forward(last).y;
  return head_.logits(reshape(y, {tokens.size(0), config_.dim}));  // (B, V)
}

Transformer::Cache Transformer::Cache::of_text(int64_t text) const {
  Cache part;
  for (const KvCache& layer : layers) part.layers.push_back({slice(layer.kv, 0, text, text + 1), 0});
  return part;
}

Tensor Transformer::decode_logits(const Tensor& tokens, const Tensor& position, const Tensor& row, const Cache& cache) const {
  NoGradGuard no_grad;
  const int64_t b = tokens.size(0);
  const Shape one_each{b, 1};
  // The layers take the texts for the tokens of one sequence; attention alone tells them apart.
  const auto of_table = [&](const Tensor& table) { return reshape(embedding(reshape(position, one_each), table), {b, table.size(1)}); };
  const WeightUse positions(pos_);
  Residual h{tok_.forward(reshape(tokens, {1, b}), pos_ ? of_table(positions.values()) : Tensor()), {}};
  const Tensor rope = rope_table_on(h.stream.device());
  const DecodePlaces places{position, row, rope ? of_table(rope) : Tensor()};
  for (size_t i = 0; i < blocks_.size(); ++i) h = blocks_[i]->decode(h, places, cache.layers[i]);
  const Tensor y = norm_.forward(h.stream, h.branch).y;
  return head_.logits(reshape(y, {b, config_.dim}));
}

}  // namespace heddle
