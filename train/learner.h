// Learner: what a run trains. heddle's own is the Transformer that the options describe; a program of yours hands pretrain() another one, and the
// loop, restarts, validation and logs are the same (examples/own_model).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "core/nn/module.h"
#include "infer/generate.h"
#include "models/transformer.h"
#include "train/config/run_config.h"
#include "train/trainer.h"

namespace heddle {

class Learner {
 public:
  virtual ~Learner() = default;

  virtual const Module& module() const = 0;
  // The root of backward for a micro-step: see Objective.
  virtual Tensor loss(const Batch& batch, const ObjectiveOptions& options) const = 0;
  // For --val: the negative log likelihood of every target in nats, 0 where there is none. tokens, targets, document_start (B, T) i32 to (B T) f32.
  virtual Tensor token_losses(const Tensor& tokens, const Tensor& targets, const Tensor& document_start) const = 0;
  // What a checkpoint says of the model, a JSON object: a run goes on only with a learner that says the same.
  virtual std::string description() const = 0;
  // "12 layers of 768, ...": for the console.
  virtual std::string summary() const = 0;
  // Whether loss() and token_losses() queue the same kernels for every batch, and leave to the device what depends on numbers: then steps and
  // evaluations may be recorded (--graphs).
  virtual bool recordable() const { return false; }
  virtual double flops_per_token([[maybe_unused]] int64_t seq) const { return 6 * static_cast<double>(module().parameter_count()); }
  // For --sample-every: continues `prompt`, see generate_tokens(). False: it cannot.
  virtual bool generate(std::span<const int32_t>, int64_t, const SamplingOptions&,
                        const std::function<bool(int32_t token, const Tensor& logits)>&) const {
    return false;
  }
};

// Makes a learner over `vocab` tokens, that of the data or of --vocab. Called again to look at its shape before memory is taken.
using MakeLearner = std::function<std::unique_ptr<Learner>(const RunConfig& config, int64_t vocab)>;

std::unique_ptr<Learner> transformer_learner(const TransformerConfig& config);

}  // namespace heddle
