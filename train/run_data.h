// What a run reads: which tokenizer, which shards.
#pragma once

#include "data/loader.h"
#include "infer/identity.h"
#include "train/config/run_config.h"

namespace heddle {

// --tokenizer, else the copy in the run directory, else the one beside the first shards; none where there is no such file. Error(mismatch)
// when --tokenizer names another one than the run directory holds.
ModelTokenizer find_tokenizer(const RunConfig& config);
// Files that an earlier start named, relative to `folder`, and that are not to be seen from here: Error(usage) that says where it was.
void require_saved_paths(const RunConfig& config, const std::string& folder);

// The shards of --val that are those of --data as well.
std::vector<std::string> shards_in_both(const RunConfig& config);
// How the shards of --data are read.
LoaderOptions loader_options(const RunConfig& config, const ModelTokenizer& tokenizer);

}  // namespace heddle
