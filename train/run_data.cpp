#include "train/run_data.h"

#include <filesystem>

#include "data/file.h"
#include "train/model.h"

namespace heddle {

std::optional<Tokenizer> find_tokenizer(const RunConfig& config) {
  namespace fs = std::filesystem;
  if (!config.tokenizer.empty()) return Tokenizer::load(config.tokenizer);
  const fs::path kept = fs::path(config.out) / "tokenizer.json";
  const fs::path from = fs::exists(kept) ? kept : fs::path(directory_name(expand_glob(config.data.front()).front())) / "tokenizer.json";
  if (!fs::exists(from)) return std::nullopt;
  return Tokenizer::load(from.string());
}

LoaderOptions loader_options(const RunConfig& config, const std::optional<Tokenizer>& tokenizer) {
  LoaderOptions options;
  options.shards = config.data;
  options.seq = config.seq;
  options.seed = static_cast<uint64_t>(config.seed);
  options.document_mask = config.doc_mask;
  options.prefetch_batch = config.batch;
  if (tokenizer) {
    options.vocab = tokenizer->vocab_size();
    options.eot = tokenizer->eot();
    require_same_tokenizer(config.data.front(), *tokenizer, config.tokenizer.empty() ? "the run's tokenizer" : config.tokenizer);
  } else if (config.is_fixed("vocab")) {
    options.vocab = config.vocab;
  }
  return options;
}

}  // namespace heddle
