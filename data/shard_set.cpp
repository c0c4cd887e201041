#include "data/shard_set.h"

#include <map>
#include <set>

#include "kernels/api/check.h"

namespace heddle {
namespace {

constexpr uint64_t kVerifyBytes = uint64_t{1} << 30;

}  // namespace

ShardSet::ShardSet(const LoaderOptions& options) {
  std::set<std::string> paths;
  for (const std::string& pattern : options.shards) {
    const std::vector<std::string> found = expand_glob(pattern);
    paths.insert(found.begin(), found.end());
  }
  if (paths.empty()) fail("loader", "no shards given; name them with a pattern like 'data/*_train_*.bin'", ExitCode::usage);
  for (const std::string& path : paths) shards_.emplace_back(path, options.format);
  take_dataset(options);
  if (vocab_ == 0) {
    fail("loader",
         concat("the vocabulary size of ", shards_[0].path(), " is unknown: no dataset.json beside it records it; give --vocab or --tokenizer"),
         ExitCode::usage);
  }
  if (eot_ && (*eot_ < 0 || *eot_ >= vocab_)) {
    fail("loader", concat("end-of-text token ", *eot_, " is not below the vocabulary size ", vocab_), ExitCode::usage);
  }
  uint64_t bytes = 0;
  for (const ShardReader& shard : shards_) bytes += shard.file_bytes().size();
  const bool verify = options.verify == VerifyHashes::always || (options.verify == VerifyHashes::automatic && bytes <= kVerifyBytes);
  for (size_t i = 0; i < shards_.size(); ++i) {
    shards_[i].check_tokens(vocab_);
    if (!verify || !records_[i]) continue;
    if (sha256_hex(shards_[i].file_bytes()) != records_[i]->sha256) {
      fail("loader",
           concat(shards_[i].path(), ": its SHA-256 is not the one in dataset.json; the file is damaged or was edited: copy or write it again"),
           ExitCode::bad_data);
    }
  }
}

// Every directory that holds shards may have its own dataset.json; all must agree on the tokenizer.
void ShardSet::take_dataset(const LoaderOptions& options) {
  std::map<std::string, std::optional<DatasetInfo>> datasets;
  if (options.vocab) vocab_ = *options.vocab;
  eot_ = options.eot;
  std::optional<EotPosition> position = options.eot_position;
  const auto differ = [&](const std::string& path, const char* what, const auto& here, const auto& given) {
    fail("loader",
         concat(path, "/dataset.json: ", what, " is ", here, " there, ", given, " asked for; use the tokenizer the shards were written with"),
         ExitCode::mismatch);
  };
  records_.resize(shards_.size());
  for (size_t i = 0; i < shards_.size(); ++i) {
    const std::string directory = directory_name(shards_[i].path());
    auto found = datasets.find(directory);
    if (found == datasets.end()) found = datasets.emplace(directory, DatasetInfo::load(directory)).first;
    if (!found->second) continue;
    const DatasetInfo& info = *found->second;
    const DatasetInfo::Shard* record = info.find(base_name(shards_[i].path()));
    if (!record) continue;  // a shard from elsewhere: only the options speak for it
    if (vocab_ == 0) vocab_ = info.vocab;
    if (!eot_) eot_ = info.eot;
    if (!position) position = info.eot_position;
    // A model's vocabulary may be padded above the tokenizer's, never below it.
    if (vocab_ < info.vocab) differ(directory, "the vocabulary size", info.vocab, vocab_);
    if (*eot_ != info.eot) differ(directory, "the end-of-text token", info.eot, *eot_);
    if (*position != info.eot_position) differ(directory, "the end-of-text position", name_of(info.eot_position), name_of(*position));
    if (record->tokens != shards_[i].tokens()) {
      fail("loader",
           concat(shards_[i].path(), ": holds ", shards_[i].tokens(), " tokens, dataset.json records ", record->tokens,
                  "; write the data set again with `heddle tokenize`"),
           ExitCode::bad_data);
    }
    records_[i] = *record;
  }
  eot_position_ = position.value_or(EotPosition::prepend);
}

uint64_t ShardSet::tokens() const {
  uint64_t total = 0;
  for (const ShardReader& shard : shards_) total += static_cast<uint64_t>(shard.tokens());
  return total;
}

std::optional<uint64_t> ShardSet::text_bytes() const {
  uint64_t total = 0;
  for (const auto& record : records_) {
    if (!record) return std::nullopt;
    total += static_cast<uint64_t>(record->bytes);
  }
  return total;
}

std::string ShardSet::content_lines() const {
  std::string lines;
  for (size_t i = 0; i < shards_.size(); ++i) {
    const std::string_view content = shards_[i].file_bytes();
    lines += concat(base_name(shards_[i].path()), " ", content.size(), " ", records_[i] ? records_[i]->sha256 : sha256_hex(content), "\n");
  }
  return lines;
}

}  // namespace heddle
