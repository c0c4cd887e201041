// Token shards: a header of 256 little-endian int32 and then the tokens.
//
//   format             [0] magic   [1] version   [2] tokens (int32)   token type
//   GPT-2 (llm.c)      20240520    1             n                    uint16
//   Llama-3 (llm.c)    20240801    7             n                    uint32
//
// The rest of the header is zero. A file is exactly 1024 + n * sizeof(token) bytes. Source: llm.c (dev/data/data_common.py,
// llmc/dataloader.h); modded-nanogpt reads the GPT-2 form. nanoGPT's headerless uint16 files are read when asked for by name.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/file.h"

namespace heddle {

enum class ShardFormat : uint8_t {
  header,   // told by the magic number
  raw_u16,  // nanoGPT: uint16 tokens from the first byte on
};

inline constexpr int64_t kShardHeaderBytes = 1024;
inline constexpr int64_t kShardMaxTokens = 0x7FFFFFFF;  // the header counts in int32

// One shard, read where it is asked for. Opening checks magic, version, the rest of the header and the exact size: Error(bad_data) names the file,
// what is wrong at which offset, and the cure. Reading may come from several threads; SharedFile says what becomes of a file that changes meanwhile.
class ShardReader {
 public:
  explicit ShardReader(const std::string& path, ShardFormat format = ShardFormat::header);

  const std::string& path() const { return path_; }
  int64_t tokens() const { return tokens_; }
  int token_bytes() const { return token_bytes_; }  // 2 or 4
  uint64_t file_bytes() const { return file_.size(); }
  std::string sha256() const { return file_.sha256(); }

  uint32_t token(int64_t index) const;
  // to[i] = token first + i. Values above int32 do not pass check_tokens().
  void read(int64_t first, std::span<int32_t> to) const;

  // The whole file read once, from its beginning: `look` is given all tokens, block by block, and the number of the block's first one. Tokens that
  // are not below `vocab` (0: any) are Error(bad_data) with the byte offset. Returns the file's SHA-256 where `hash` asks for it, else "".
  using Look = std::function<void(int64_t first, std::span<const uint32_t> tokens)>;
  std::string scan(int64_t vocab, bool hash, const Look& look = {}) const;
  void check_tokens(int64_t vocab) const;
  void check_token(uint32_t token, int64_t index, int64_t vocab) const;  // one that was read at `index`
  uint32_t largest_token() const;

 private:
  uint64_t offset_of(int64_t index) const { return static_cast<uint64_t>(header_bytes_ + index * token_bytes_); }
  std::string path_;
  SharedFile file_;
  int64_t tokens_ = 0;
  int header_bytes_ = 0;
  int token_bytes_ = 2;
};

// Writes one shard: GPT-2 form when vocab <= 65536, else Llama-3 form. The file appears under its name only when finish() has flushed it;
// a writer destroyed before leaves nothing.
class ShardWriter {
 public:
  ShardWriter(std::string path, int64_t vocab);
  void append(std::span<const int32_t> tokens);  // at most kShardMaxTokens in all, each in [0, vocab)
  int64_t tokens() const { return tokens_; }
  std::string finish();  // returns the file's SHA-256

 private:
  std::string path_, temporary_;
  int64_t vocab_;
  FileWriter file_;
  int64_t tokens_ = 0;
  std::vector<char> buffer_;
};

}  // namespace heddle
