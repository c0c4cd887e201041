// Pretrains a model of this file's own with everything `heddle pretrain` has: restarts, validation, logs, ranks under mpirun.
//
//   own_model --data 'shards/*_train_*.bin' --val 'shards/*_val_*.bin' --out run --steps 200 --lr 3e-3      (the flags of heddle pretrain)
//
// The model predicts the next token from the current one alone, by a gated MLP over its embedding: a bigram model.
#include <cstdio>
#include <string>
#include <vector>

#include "core/autograd/node.h"
#include "core/nn/layers.h"
#include "core/nn/mlp.h"
#include "core/ops/ops.h"
#include "kernels/api/check.h"
#include "kernels/api/kernel.h"
#include "train/pretrain.h"

namespace {

using namespace heddle;

class Bigram final : public Module {
 public:
  Bigram(int64_t vocab, int64_t dim) : norm_(dim, {.type = NormType::rms}), mlp_({.kind = "swiglu", .dim = dim, .hidden = 4 * dim}) {
    begin_bucket("table");
    ParameterSpec table;
    table.kind = ParamKind::embedding;
    table.parts = {{.global = {vocab, dim}}};
    table.init_std = 0.02f;
    table_ = add("table.weight", table);
    begin_bucket("mlp");
    add("norm", norm_);
    add("mlp", mlp_);
  }
  Tensor hidden(const Tensor& tokens) const {  // (B, T) to (B, T, C)
    const Tensor e = embedding(tokens, table_);
    return ::heddle::add(e, mlp_.forward(norm_.forward(e).y));
  }
  const Parameter& table() const { return table_; }

 private:
  Parameter table_;
  Norm norm_;
  Mlp mlp_;
};

class BigramLearner final : public Learner {
 public:
  BigramLearner(int64_t vocab, int64_t dim) : vocab_(vocab), dim_(dim), model_(vocab, dim) {}

  const Module& module() const override { return model_; }
  Tensor loss(const Batch& batch, const ObjectiveOptions& o) const override {
    return linear_cross_entropy(model_.hidden(batch.tokens), model_.table(), batch.targets, {.z_loss = o.z_loss, .step = o.step, .nll = o.nll});
  }
  heddle::Tensor token_losses(const Tensor& tokens, const Tensor& targets, const Tensor&) const override {
    const NoGradGuard nothing_recorded;
    return ::heddle::token_losses(model_.hidden(tokens), model_.table(), targets);
  }
  std::string description() const override { return concat("{\"name\": \"bigram\", \"vocab\": ", vocab_, ", \"dim\": ", dim_, "}"); }
  std::string summary() const override { return concat("bigram, ", dim_, " wide, vocabulary ", vocab_); }

 private:
  int64_t vocab_, dim_;
  Bigram model_;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    kernels::register_cpu_kernels();
    std::vector<FlagValue> flags;  // "--name value" pairs; RunConfig::options() lists what there is
    for (int i = 1; i < argc; ++i) {
      const std::string name = argv[i];
      if (name.rfind("--", 0) != 0 || i + 1 == argc) fail("own_model", concat(name, ": give --name value pairs"), ExitCode::usage);
      flags.push_back({name.substr(2), argv[++i]});
    }
    return pretrain(make_run_config("", {}, flags), [](const RunConfig&, int64_t vocab) { return std::make_unique<BigramLearner>(vocab, 48); });
  } catch (const Error& e) {
    std::fprintf(stderr, "own_model: %s\n", e.what());
    return static_cast<int>(e.code());
  }
}
