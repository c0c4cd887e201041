// Which tokenizer a run and its checkpoints belong to, and how ranks share the reading of shards: what training, evaluation and generation ask before
// they bring shards and models together. The comparison itself is require_same_tokenizer (data/same_tokenizer.h).
#pragma once

#include <optional>
#include <string>

#include "data/loader.h"
#include "data/same_tokenizer.h"
#include "parallel/control.h"

namespace heddle {

// A run's tokenizer.json and what its checkpoint records of it.
struct ModelTokenizer {
  std::optional<Tokenizer> tokenizer;         // absent when there is no file
  std::optional<TokenizerIdentity> identity;  // of the file, else what the checkpoint records; absent when neither says
};

// `path` is a run directory, a checkpoint directory or its MANIFEST; `scalars` are the counters of the checkpoint, "" when they are not known. The
// tokenizer.json is the one in the run directory, for a checkpoint the one it lies in (RUN/ckpt/NAME); a neighbour's is never taken.
// Error(mismatch) when it is not the tokenizer that the checkpoint records.
ModelTokenizer tokenizer_of_model(const std::string& path, const std::string& scalars);

// The key of the counters under which a checkpoint records the fingerprint of its run's tokenizer.
inline constexpr char kTokenizerCounter[] = "tokenizer";

// "FILE ...": the warning about shards that do not say whose tokens they hold. `taken_for` is the tokenizer that they are taken for; "": unknown.
std::string unidentified_text(const std::string& first_file, const std::string& taken_for);

// How many tokens the samples of `loader` use, and where the others are; one line.
std::string coverage_text(const Loader& loader);

// The ranks of `control` read every shard once between them.
SharedReading shared_reading(Control& control);

}  // namespace heddle
