// Which tokenizer token ids belong to. Two tokenizers may have equally many tokens and mean different things by them, so every place where shards,
// tokenizers and models meet compares fingerprints: one function, one message.
#pragma once

#include <cstdint>
#include <string>

#include "data/tokenizer.h"

namespace heddle {

struct TokenizerIdentity {
  std::string name;         // how messages call what has it: "the run's tokenizer", "shards/dataset.json"
  std::string fingerprint;  // Tokenizer::fingerprint()
  int64_t vocab = 0;        // 0: not known
};

TokenizerIdentity identity_of(const Tokenizer& tokenizer, std::string name);

// Error(mismatch) naming both unless they are the same tokenizer.
void require_same_tokenizer(const TokenizerIdentity& one, const TokenizerIdentity& other);

}  // namespace heddle
