#include "train/run_data.h"

#include <filesystem>
#include <map>

#include "data/file.h"
#include "kernels/api/check.h"

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

void require_saved_paths(const RunConfig& config, const std::string& folder) {
  namespace fs = std::filesystem;
  std::error_code unknown;
  const std::string here = fs::current_path(unknown).string();
  if (folder.empty() || folder == here) return;
  const auto require = [&](const char* name, const std::vector<std::string>& paths) {
    for (const std::string& path : paths) {
      if (config.is_stated(name) || path.empty() || fs::path(path).is_absolute()) continue;
      try {
        expand_glob(path);
      } catch (const Error& e) {
        if (e.code() != ExitCode::usage) throw;
        fail("pretrain",
             concat("no file matches '", path, "', which an earlier start gave as --", name, ": this one looks in ", here,
                    ", the run was saved from ", folder, "; start it from there, or give --", name, " again"),
             ExitCode::usage);
      }
    }
  };
  require("data", config.data);
  require("val", config.val);
  require("tokenizer", {config.tokenizer});
}

std::vector<std::string> shards_in_both(const RunConfig& config) {
  const auto files = [](const std::vector<std::string>& globs) {
    std::map<std::string, std::string> found;  // by the file itself, whatever links lead to it
    for (const std::string& glob : globs) {
      for (const std::string& path : expand_glob(glob)) {
        std::error_code gone;
        found.emplace(std::filesystem::weakly_canonical(path, gone).string(), path);
      }
    }
    return found;
  };
  const std::map<std::string, std::string> trained = files(config.data);
  std::vector<std::string> both;
  for (const auto& [file, path] : files(config.val)) {
    if (trained.count(file) > 0) both.push_back(path);
  }
  return both;
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
