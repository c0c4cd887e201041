// The shards that globs name, opened and checked together with the dataset.json beside them. Internal to the loader and the windows.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/loader.h"

namespace heddle {

// Numbers as bytes, seven bits at a time, the last byte below 128 (LEB128): how ranks tell each other counts.
void append_number(std::string& to, uint64_t value);
uint64_t take_number(std::string_view& from);  // Error(bad_data) when the text ends first

class ShardSet {
 public:
  // Uses the options shards, format, vocab, eot, eot_position, tokenizer. See Loader for the errors. Of the shards only the headers are read.
  explicit ShardSet(const LoaderOptions& options);

  // What else is to be known of the tokens of shard `shard`, as a text of the caller's: begin() before them, look() with all of them in order, end().
  struct Survey {
    std::function<void(size_t shard)> begin;
    std::function<void(int64_t first, std::span<const uint32_t> tokens)> look;
    std::function<std::string()> end;
  };
  // Reads every shard once, shared over the ranks as the option `reading` says: every token < token_limit(), the hash where `verify` asks or, for
  // all_hashes, no dataset.json has it. Returns the survey's text for each shard.
  std::vector<std::string> read_all(const LoaderOptions& options, bool all_hashes, const Survey& survey);

  const std::vector<ShardReader>& shards() const { return shards_; }
  int64_t vocab() const { return vocab_; }
  int64_t token_limit() const;  // every token is below: the tokenizer's size where it is known, for a model's vocabulary may be padded beyond it
  std::optional<int32_t> eot() const { return eot_; }
  EotPosition eot_position() const { return eot_position_; }
  const std::optional<TokenizerIdentity>& tokenizer() const { return tokenizer_; }
  const std::string& unidentified() const { return unidentified_; }
  uint64_t tokens() const;
  // Bytes of text in all shards, when dataset.json records every one of them.
  std::optional<uint64_t> text_bytes() const;
  // One line a shard: base name, size, SHA-256. After read_all() with all_hashes.
  std::string content_lines() const;

 private:
  void take_dataset(const LoaderOptions& options);
  std::string read_one(size_t shard, bool hash, const Survey& survey);
  std::vector<ShardReader> shards_;
  std::vector<std::optional<DatasetInfo::Shard>> records_;  // parallel to shards_
  std::vector<std::string> hashes_;                         // parallel to shards_; "" where none was taken
  int64_t vocab_ = 0;
  std::optional<int32_t> eot_;
  EotPosition eot_position_ = EotPosition::prepend;
  std::optional<TokenizerIdentity> tokenizer_;
  std::string unidentified_;
};

}  // namespace heddle
