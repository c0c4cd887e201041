#include "kernels/api/embedding.h"

#include "core/ops/common.h"

namespace heddle {
namespace {

// out[b, t] = weight[token] + position[t - start]: each weight row's gradient is the sum of the rows of dout it was copied to. Of a vocabulary in
// shards the first one adds the positions; their gradient is whole on every rank, as the sum's is.
class EmbeddingNode final : public Node {
 public:
  std::string_view name() const override { return "embedding"; }
  void backward(std::span<const Tensor> dy, std::span<GradSlot> dx) override {
    kernels::EmbeddingBackwardArgs args;
    args.tokens = tokens_.get(name()).view();
    if (start_) args.start = start_.get(name()).view();
    args.d_out = dy[0].view();
    args.d_weight = dx[0].sink();
    args.d_position = dx[1].sink();
    args.shard = shard_;
    launch(kernels::embedding_backward, args, dy[0].device());
  }
  void release_saved() override { tokens_.reset(), start_.reset(); }

  Saved tokens_, start_;
  VocabShard shard_;
};

}  // namespace

Tensor embedding(const Tensor& tokens, const Weight& table, const Weight& positions, const Tensor& document_start, const VocabShard& shard) {
  const Tensor &weight = table.slot(), &position = positions.slot();
  check_floating(weight, "embedding", "weight");
  check_same_dtype(weight, position, "embedding");
  HEDDLE_CHECK(tokens && tokens.dtype() == DType::i32 && tokens.rank() == 2, "embedding", "tokens must be i32 (B, T), not ",
               shape_text(tokens.view()));
  HEDDLE_CHECK(weight.rank() == 2, "embedding", "weight must be (V, C), not ", shape_text(weight.shape()));
  HEDDLE_CHECK(!position || (position.rank() == 2 && position.size(0) >= tokens.size(1) && position.size(1) == weight.size(1)), "embedding",
               "positions ", shape_text(position.view()), " for tokens ", shape_text(tokens.shape()), " and weight ", shape_text(weight.shape()));
  Tensor out = Tensor::empty({tokens.size(0), tokens.size(1), weight.size(1)}, weight.dtype(), weight.device());  // (B, T, C)
  {
    const WeightUse w(table), p(shard.first == 0 ? positions : Weight());
    launch(kernels::embedding_forward,
           {.tokens = tokens.view(), .weight = w.view(), .position = p.view(), .start = document_start.view(), .out = out.view(), .shard = shard},
           out.device());
  }
  if (recording({&weight, &position})) {
    auto node = std::make_shared<EmbeddingNode>();
    node->tokens_ = Saved(tokens), node->start_ = Saved(document_start), node->shard_ = shard;
    record(node, {&weight, &position}, {&out});
  }
  return out;
}

}  // namespace heddle
