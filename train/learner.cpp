#include "train/learner.h"

#include "kernels/api/printable.h"
#include "train/objectives.h"

namespace heddle {
namespace {

class TransformerLearner final : public Learner {
 public:
  explicit TransformerLearner(const TransformerConfig& config) : model_(config), objective_(next_token_objective(model_)) {}

  const Module& module() const override { return model_; }
  Tensor loss(const Batch& batch, const ObjectiveOptions& options) const override { return objective_(batch, options); }
  Tensor token_losses(const Tensor& tokens, const Tensor& targets, const Tensor& document_start) const override {
    return model_.token_losses(tokens, targets, document_start);
  }
  std::string description() const override { return to_json(model_.config()); }
  std::string summary() const override {
    const TransformerConfig& m = model_.config();
    return concat(counted(m.layers, "layer"), " of ", m.dim, ", ", counted(m.heads, "head"), " (", m.kv_heads, " KV), vocabulary ", m.vocab);
  }
  bool recordable() const override { return true; }
  double flops_per_token(int64_t seq) const override { return model_.config().flops_per_token(seq); }
  bool generate(std::span<const int32_t> prompt, int64_t most, const SamplingOptions& options,
                const std::function<bool(int32_t, const Tensor&)>& emit) const override {
    generate_tokens(model_, prompt, most, options, emit);
    return true;
  }

 private:
  Transformer model_;
  Objective objective_;
};

}  // namespace

std::unique_ptr<Learner> transformer_learner(const TransformerConfig& config) {
  return std::make_unique<TransformerLearner>(config);
}

}  // namespace heddle
