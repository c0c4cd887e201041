#include "train/run_data.h"

#include <filesystem>

#include "data/file.h"

namespace heddle {

ModelTokenizer find_tokenizer(const RunConfig& config) {
  namespace fs = std::filesystem;
  const fs::path kept = fs::path(config.out) / "tokenizer.json";
  fs::path from = config.tokenizer;
  if (from.empty()) from = fs::exists(kept) ? kept : fs::path(directory_name(expand_glob(config.data.front()).front())) / "tokenizer.json";
  ModelTokenizer found;
  if (config.tokenizer.empty() && !fs::exists(from)) return found;
  found.tokenizer = Tokenizer::load(from.string());
  found.identity = identity_of(*found.tokenizer, from.string());
  if (from != kept && fs::exists(kept)) require_same_tokenizer(*found.identity, identity_of(Tokenizer::load(kept.string()), kept.string()));
  return found;
}

LoaderOptions loader_options(const RunConfig& config, const ModelTokenizer& tokenizer) {
  LoaderOptions options;
  options.shards = config.data;
  options.seq = config.seq;
  options.seed = static_cast<uint64_t>(config.seed);
  options.document_mask = config.doc_mask;
  options.prefetch_batch = config.batch;
  options.tokenizer = tokenizer.identity;
  if (tokenizer.tokenizer) {
    options.vocab = tokenizer.tokenizer->vocab_size();
    options.eot = tokenizer.tokenizer->eot();
  } else if (config.is_fixed("vocab")) {
    options.vocab = config.vocab;
  }
  return options;
}

}  // namespace heddle
