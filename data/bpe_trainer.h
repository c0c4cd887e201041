// Trains a byte-level BPE tokenizer on text.
//
// The pieces of the text are counted; then, until the vocabulary is full, the adjacent pair of tokens that occurs most often becomes a token
// (Gage 1994; Sennrich et al., ACL 2016). Ties go to the smallest (left id, right id), single bytes have GPT-2's ids: the rules of Hugging
// Face's BpeTrainer, and the same merges. The result depends on the pieces' counts alone, not on the order of the documents.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>

#include "data/tokenizer.h"

namespace heddle {

class BpeTrainer {
 public:
  explicit BpeTrainer(SplitRule split = SplitRule::gpt2) : split_(split) {}
  void add(std::string_view text);  // one document; pieces never reach from one to the next
  // A tokenizer of exactly `vocab` tokens: 256 bytes, vocab - 257 merges, <|endoftext|> as the last id. Error(usage) when vocab is not in
  // [257, 2^24] or the text has fewer pairs to merge.
  Tokenizer train(int64_t vocab) const;

 private:
  struct Hash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
  };
  SplitRule split_;
  std::unordered_map<std::string, int64_t, Hash, std::equal_to<>> pieces_;
};

}  // namespace heddle
