#include "data/same_tokenizer.h"

#include "kernels/api/check.h"
#include "kernels/api/printable.h"

namespace heddle {

TokenizerIdentity identity_of(const Tokenizer& tokenizer, std::string name) {
  return {std::move(name), tokenizer.fingerprint(), tokenizer.vocab_size()};
}

void require_same_tokenizer(const TokenizerIdentity& one, const TokenizerIdentity& other) {
  if (one.fingerprint == other.fingerprint) return;
  const auto text = [](const TokenizerIdentity& t) {
    return concat(t.vocab > 0 ? concat(counted(t.vocab, "token"), ", ") : "", "fingerprint ", t.fingerprint.substr(0, 12));
  };
  fail("tokenizer",
       concat(one.name, " and ", other.name, " belong to different tokenizers (", text(one), "; ", text(other),
              "): the token ids of one mean nothing to the other; use shards, models and --tokenizer of one tokenizer"),
       ExitCode::mismatch);
}

}  // namespace heddle
