// Loss of a model on held-out token shards: during training and after it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/recorded.h"
#include "core/tensor.h"
#include "data/tokenizer.h"
#include "data/windows.h"
#include "kernels/api/check.h"
#include "models/transformer.h"
#include "parallel/control.h"

namespace heddle {

struct EvalResult {
  double nats = 0;               // summed over the scored tokens
  uint64_t tokens = 0;           // scored
  uint64_t bytes = 0;            // of text that they stand for; 0: no tokenizer
  uint64_t words = 0;            // of it, told apart by white space
  double loss() const;           // nats a token
  double bits_per_byte() const;  // NaN without bytes
  double bits_per_word() const;  // 2 to its power is the word-level perplexity; NaN without words
};

// tokens, targets, document_start (B, T) i32 to the negative log likelihood of every target (B T), in nats; 0 where there is none.
using TokenLosses = std::function<Tensor(const Tensor& tokens, const Tensor& targets, const Tensor& document_start)>;

// Rolling windows over held-out shards (data/windows.h), shared over the ranks of a job. Memory is allocated once.
class Evaluator {
 public:
  // tokens: the first this many are scored, or all when there are fewer; 0: all. batch: a rank's sequences at a time, at most: as few as the same
  // number of rounds allows, so that little is computed for nothing. The tokenizer may be absent. Collective: the ranks share the reading.
  Evaluator(const WindowOptions& windows, int64_t batch, int64_t tokens, const Tokenizer* tokenizer, Device device, Control& control);
  // Collective. `stop`, when given, is asked after each batch is read; true ends the evaluation early and gives nullopt. `failed`, when given, is
  // told of data that cannot be read, and `stop` has to say so on all ranks then.
  std::optional<EvalResult> run(const TokenLosses& losses, const std::function<bool()>& stop = {},
                                const std::function<void(const Error&)>& failed = {});
  std::optional<EvalResult> run(const Transformer& model, const std::function<bool()>& stop = {}) {
    return run([&](const Tensor& tokens, const Tensor& targets, const Tensor& start) { return model.token_losses(tokens, targets, start); }, stop);
  }
  // On cuda a batch's work is recorded at the second batch of the first run and launched as a graph from then on, but for the first batch of each
  // run, in which layers may wait for what training had under way. All runs are of the same `losses` then. `tell` hears why it could not be.
  void record_batches(std::function<void(const std::string&)> tell);
  uint64_t rows() const { return rows_; }
  int64_t batch() const { return batch_; }
  const std::string& unidentified() const { return windows_.unidentified(); }

 private:
  Windows windows_;
  Control& control_;
  Device device_;
  int64_t batch_ = 0, seq_;
  uint64_t rows_ = 0, bytes_ = 0, words_ = 0;
  Tensor tokens_, targets_, document_start_;  // (B, T)
  std::vector<int32_t> staging_;
  Recorded batch_work_;
  Tensor batch_losses_;  // (B T), of the batch that it did last
};

}  // namespace heddle
