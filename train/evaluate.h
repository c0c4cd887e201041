// Loss of a model on held-out token shards: during training and behind `heddle eval`.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/tensor.h"
#include "data/tokenizer.h"
#include "data/windows.h"
#include "models/transformer.h"
#include "parallel/communicator.h"
#include "train/config.h"

namespace heddle {

struct EvalOptions {
  std::string path;               // run directory or one of its checkpoints
  std::vector<std::string> data;  // globs of token shards
  int64_t tokens = 0;             // score exactly the first this many, all when there are fewer; 0: all
  int64_t stride = 0;             // targets a window scores; the rest of it is context; 0: half the sequence length
  int64_t batch = 8;              // sequences at a time, at most
  std::string tokenizer;          // tokenizer.json of shards that no dataset.json records
  bool json = false;              // one JSON object instead of a line
  DeviceChoice device = DeviceChoice::automatic;
  PrecisionChoice precision = PrecisionChoice::automatic;
  int64_t threads = 0;

  static std::span<const Option<EvalOptions>> options();
  void validate() const;  // Error(usage)
};

struct EvalResult {
  double nats = 0;               // summed over the scored tokens
  uint64_t tokens = 0;           // scored
  uint64_t bytes = 0;            // of text that they stand for; 0: no tokenizer
  uint64_t words = 0;            // of it, told apart by white space
  double loss() const;           // nats a token
  double bits_per_byte() const;  // NaN without bytes
  double bits_per_word() const;  // 2 to its power is the word-level perplexity; NaN without words
};

// Rolling windows over held-out shards (data/windows.h), shared over the ranks of a job. Memory is allocated once.
class Evaluator {
 public:
  // tokens: the first this many are scored, or all when there are fewer; 0: all. batch: a rank's sequences at a time, at most: as few as the same
  // number of rounds allows, so that little is computed for nothing. The tokenizer may be absent. Collective: the ranks share the reading.
  Evaluator(const WindowOptions& windows, int64_t batch, int64_t tokens, const Tokenizer* tokenizer, Device device, Communicator& comm);
  // Collective. `stop`, when given, is asked after each batch is read; true ends the evaluation early and gives nullopt. `failed`, when given, is
  // told of data that cannot be read, and `stop` has to say so on all ranks then.
  std::optional<EvalResult> run(const Transformer& model, const std::function<bool()>& stop = {},
                                const std::function<void(const Error&)>& failed = {});
  uint64_t rows() const { return rows_; }
  int64_t batch() const { return batch_; }
  const std::string& unidentified() const { return windows_.unidentified(); }

 private:
  Windows windows_;
  Communicator& comm_;
  Device device_;
  int64_t batch_ = 0, seq_;
  uint64_t rows_ = 0, bytes_ = 0, words_ = 0;
  Tensor tokens_, targets_, document_start_;  // (B, T)
  std::vector<int32_t> staging_;
};

// Prints loss, perplexity, bits per byte and per word to standard output; returns the exit code. Throws Error.
int evaluate(const EvalOptions& options);

}  // namespace heddle
