// Rolling windows over held-out shards: every text token is scored exactly once. For validation loss and bits per byte.
//
// A document is a maximal run of tokens without end-of-text; its sequence is s = [eot, t_1, ..., t_n], whichever side of it the shards keep the
// token on, so that t_1 is predicted from eot. Targets are t_1 .. t_n and nothing else: end-of-text is context, never scored, and bits per byte
// = (sum of the targets' -log2 p) / (bytes the targets stand for). With window T and stride S the first window scores the first T targets;
// each later one scores the next S (fewer at the end) and its context begins T - S tokens before the first of them. A document that goes on in
// the next shard starts there anew from eot. Without an end-of-text token each shard is one document and its first token, which nothing
// precedes, is not scored.
// Rows hold several windows after one another, told apart by document_start (the attention mask of training); pack = false gives each window
// a row of its own, for models that do not mask. What is left of a row is padding: target -1, a document of its own.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/loader.h"
#include "data/tokenizer.h"

namespace heddle {

struct WindowOptions {
  std::vector<std::string> shards;  // globs
  int64_t seq = 0;                  // T
  int64_t stride = 0;               // S in [1, T]; 0: T, windows that do not overlap
  int64_t tokens = 0;               // score exactly the first this many, or all when there are fewer; 0: all
  bool pack = true;
  std::optional<TokenizerIdentity> tokenizer;  // as in LoaderOptions
  std::optional<int64_t> vocab;
  std::optional<int32_t> eot;
  std::optional<EotPosition> eot_position;
  ShardFormat format = ShardFormat::header;
  VerifyHashes verify = VerifyHashes::automatic;
  SharedReading reading;
};

class Windows {
 public:
  explicit Windows(const WindowOptions& options);  // errors as Loader's
  ~Windows();
  Windows(const Windows&) = delete;
  Windows& operator=(const Windows&) = delete;

  const std::string& unidentified() const;  // as Loader's
  uint64_t rows() const;
  uint64_t scored_tokens() const;
  uint64_t scored_tokens(uint64_t first_row, uint64_t count) const;  // rows beyond the end score none
  // Bytes of text behind the targets of those rows.
  uint64_t scored_bytes(uint64_t first_row, uint64_t count, const Tokenizer& tokenizer) const;
  // Words that begin there: maximal runs of bytes other than ASCII white space, across tokens, within a document.
  uint64_t scored_words(uint64_t first_row, uint64_t count, const Tokenizer& tokenizer) const;
  // scored_bytes for all rows, when dataset.json records it (and an end-of-text token is known and no limit given, so that every token is scored).
  std::optional<uint64_t> text_bytes() const;

  // Rows first_row .. first_row + out.batch - 1; rows beyond the end are padding, so every rank can run the same number of batches. May be
  // called from several threads; errors as Loader::fill's.
  void fill(uint64_t first_row, const BatchView& out) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace heddle
