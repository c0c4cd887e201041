// dataset.json: what `heddle tokenize` writes beside its shards, as the commit record of the data set.
//
//   {"format": "heddle-dataset", "version": 1, "tokenizer": "tokenizer.json", "tokenizer_fingerprint": "<64 hex>", "vocab": 257, "eot": 256,
//    "eot_position": "prepend", "shards": [{"file": "kjv_train_000000.bin", "split": "train", "tokens": 3940000, "bytes": 3930000,
//    "documents": 1130, "sha256": "<64 hex>"}, ...]}
//
// `bytes` counts the bytes of text that a shard's tokens stand for (end-of-text tokens stand for none), so bits per byte are exact.
// `documents` counts the documents that begin in the shard.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace heddle {

// Where the end-of-text token stands: before each document (llm.c, modded-nanogpt) or after it (nanoGPT).
enum class EotPosition : uint8_t { prepend, append };

struct DatasetInfo {
  struct Shard {
    std::string file;   // base name
    std::string split;  // "train" or "val"
    int64_t tokens = 0, bytes = 0, documents = 0;
    std::string sha256;
  };
  std::string tokenizer;  // base name of the tokenizer file
  std::string tokenizer_fingerprint;
  int64_t vocab = 0;
  int32_t eot = -1;
  EotPosition eot_position = EotPosition::prepend;
  std::vector<Shard> shards;

  const Shard* find(const std::string& file) const;  // as quick for many shards as for few, in what parse() made

  std::string to_json() const;
  // Parses and checks every field (types, ranges, names without a directory, no name twice). Error(bad_data) names `place`.
  static DatasetInfo parse(const std::string& text, const std::string& place);
  // The dataset.json in `directory`; nothing when there is none. Error(bad_data) when it is another program's, or parse() refuses it.
  static std::optional<DatasetInfo> load(const std::string& directory);

 private:
  std::unordered_map<std::string, size_t> index_;  // by file; only parse() fills it
};

const char* name_of(EotPosition position);

}  // namespace heddle
