// The shards that globs name, opened and checked together with the dataset.json beside them. Internal to the loader and the windows.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "data/loader.h"

namespace heddle {

class ShardSet {
 public:
  // Uses the options shards, format, vocab, eot, eot_position, verify. See Loader for the errors.
  explicit ShardSet(const LoaderOptions& options);

  const std::vector<ShardReader>& shards() const { return shards_; }
  int64_t vocab() const { return vocab_; }
  std::optional<int32_t> eot() const { return eot_; }
  EotPosition eot_position() const { return eot_position_; }
  uint64_t tokens() const;
  // Bytes of text in all shards, when dataset.json records every one of them.
  std::optional<uint64_t> text_bytes() const;
  // One line a shard: base name, size, SHA-256. Reads the shards of which no hash is recorded.
  std::string content_lines() const;

 private:
  void take_dataset(const LoaderOptions& options);
  std::vector<ShardReader> shards_;
  std::vector<std::optional<DatasetInfo::Shard>> records_;  // parallel to shards_
  int64_t vocab_ = 0;
  std::optional<int32_t> eot_;
  EotPosition eot_position_ = EotPosition::prepend;
};

}  // namespace heddle
