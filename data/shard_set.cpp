#include "data/shard_set.h"

#include <algorithm>
#include <map>
#include <set>

#include "kernels/api/check.h"
#include "kernels/api/printable.h"

namespace heddle {
namespace {

constexpr uint64_t kVerifyBytes = uint64_t{1} << 30;

// The report of one rank begins with this when its reading failed; the exit code and the message follow.
constexpr std::string_view kFailed = "failed ";

}  // namespace

void append_number(std::string& to, uint64_t value) {
  for (; value >= 128; value >>= 7) to += static_cast<char>(value | 128);
  to += static_cast<char>(value);
}

uint64_t take_number(std::string_view& from) {
  uint64_t value = 0;
  for (int shift = 0; shift < 64 && !from.empty(); shift += 7) {
    const auto byte = static_cast<unsigned char>(from.front());
    from.remove_prefix(1);
    value |= static_cast<uint64_t>(byte & 127) << shift;
    if (byte < 128) return value;
  }
  fail("loader", "what another rank says of the shards it read ends early", ExitCode::bad_data);
}

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
}

std::string ShardSet::read_one(size_t shard, bool hash, const Survey& survey) {
  if (survey.begin) survey.begin(shard);
  const std::string content = shards_[shard].scan(token_limit(), hash, survey.look);
  if (hash && records_[shard] && content != records_[shard]->sha256) {
    fail("loader",
         concat(shards_[shard].path(), ": its SHA-256 is not the one in dataset.json; the file is damaged or was edited: copy or write it again"),
         ExitCode::bad_data);
  }
  const std::string said = survey.end ? survey.end() : "";
  std::string text;
  append_number(text, content.size());
  text += content;
  append_number(text, said.size());
  return text + said;
}

std::vector<std::string> ShardSet::read_all(const LoaderOptions& options, bool all_hashes, const Survey& survey) {
  uint64_t bytes = 0;
  for (const ShardReader& shard : shards_) bytes += shard.file_bytes();
  const bool verify = options.verify == VerifyHashes::always || (options.verify == VerifyHashes::automatic && bytes <= kVerifyBytes);
  const size_t ranks = static_cast<size_t>(options.reading.ranks), mine = static_cast<size_t>(options.reading.rank);
  std::string report;
  try {
    for (size_t i = mine; i < shards_.size(); i += ranks) report += read_one(i, records_[i] ? verify : all_hashes, survey);
  } catch (const Error& error) {
    if (ranks == 1) throw;
    report = concat(kFailed, static_cast<int>(error.code()), " ", error.what());
  }
  const std::vector<std::string> reports = ranks == 1 ? std::vector<std::string>{std::move(report)} : options.reading.exchange(report);
  for (const std::string& text : reports) {
    if (text.rfind(kFailed, 0) != 0) continue;
    const size_t code = kFailed.size(), message = text.find(' ', code);
    throw Error(text.substr(message + 1), static_cast<ExitCode>(std::stoi(text.substr(code, message - code))));
  }
  std::vector<std::string_view> rest(reports.begin(), reports.end());
  const auto take = [](std::string_view& from) {
    const size_t size = std::min<size_t>(take_number(from), from.size());
    const std::string text(from.substr(0, size));
    from.remove_prefix(size);
    return text;
  };
  std::vector<std::string> said(shards_.size());
  hashes_.assign(shards_.size(), "");
  for (size_t i = 0; i < shards_.size(); ++i) {
    hashes_[i] = take(rest[i % ranks]);
    said[i] = take(rest[i % ranks]);
    if (records_[i]) hashes_[i] = records_[i]->sha256;
  }
  return said;
}

// Every directory that holds shards may have its own dataset.json; all must agree on the tokenizer.
void ShardSet::take_dataset(const LoaderOptions& options) {
  std::map<std::string, std::optional<DatasetInfo>> datasets;
  if (options.vocab) vocab_ = *options.vocab;
  eot_ = options.eot;
  tokenizer_ = options.tokenizer;
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
    const DatasetInfo::Shard* record = found->second ? found->second->find(base_name(shards_[i].path())) : nullptr;
    if (!record) {  // a shard from elsewhere: only the options speak for it
      if (unidentified_.empty()) unidentified_ = shards_[i].path();
      continue;
    }
    const DatasetInfo& info = *found->second;
    const TokenizerIdentity identity{directory + "/dataset.json", info.tokenizer_fingerprint, info.vocab};
    if (!tokenizer_) tokenizer_ = identity;
    require_same_tokenizer(identity, *tokenizer_);
    if (vocab_ == 0) vocab_ = info.vocab;
    if (!eot_) eot_ = info.eot;
    if (!position) position = info.eot_position;
    // A model's vocabulary may be padded above the tokenizer's, never below it.
    if (vocab_ < info.vocab) differ(directory, "the vocabulary size", info.vocab, vocab_);
    if (*eot_ != info.eot) differ(directory, "the end-of-text token", info.eot, *eot_);
    if (*position != info.eot_position) differ(directory, "the end-of-text position", name_of(info.eot_position), name_of(*position));
    if (record->tokens != shards_[i].tokens()) {
      fail("loader",
           concat(shards_[i].path(), ": holds ", counted(shards_[i].tokens(), "token"), ", dataset.json records ", record->tokens,
                  "; write the data set again with `heddle tokenize`"),
           ExitCode::bad_data);
    }
    records_[i] = *record;
  }
  eot_position_ = position.value_or(EotPosition::prepend);
}

int64_t ShardSet::token_limit() const {
  return tokenizer_ && tokenizer_->vocab > 0 ? std::min(tokenizer_->vocab, vocab_) : vocab_;
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
    lines += concat(base_name(shards_[i].path()), " ", shards_[i].file_bytes(), " ", hashes_[i], "\n");
  }
  return lines;
}

}  // namespace heddle
