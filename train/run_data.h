// What a run reads: which tokenizer, which shards.
#pragma once

#include <optional>

#include "data/loader.h"
#include "data/tokenizer.h"
#include "train/config.h"

namespace heddle {

// --tokenizer, else the copy in the run directory, else the one beside the first shards; none where there is no such file.
std::optional<Tokenizer> find_tokenizer(const RunConfig& config);
// How the shards of --data are read. Error(mismatch) when they were written with another tokenizer.
LoaderOptions loader_options(const RunConfig& config, const std::optional<Tokenizer>& tokenizer);

}  // namespace heddle
