#include "data/shard.h"

#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "core/io/sha256.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

static_assert(std::endian::native == std::endian::little, "shards are read in place: a little-endian machine is required");

constexpr int32_t kMagicGpt2 = 20240520, kVersionGpt2 = 1;
constexpr int32_t kMagicLlama3 = 20240801, kVersionLlama3 = 7;
constexpr int32_t kMagicEval = 20240522;
constexpr size_t kWriteBuffer = size_t{1} << 20;
constexpr int64_t kBlockTokens = int64_t{1} << 16;  // read at once: they stay in a cache

[[noreturn]] void bad(const std::string& path, const std::string& text, int line = __builtin_LINE()) {
  fail("shard", concat(path, ": ", text), ExitCode::bad_data, __FILE__, line);
}

// n tokens of two bytes at the start of `words`, spread out to four each: from the last on, in place.
void widen(std::span<uint32_t> words) {
  const char* from = reinterpret_cast<const char*>(words.data());
  for (size_t i = words.size(); i-- > 0;) {
    uint16_t token;
    std::memcpy(&token, from + 2 * i, 2);
    words[i] = token;
  }
}

}  // namespace

ShardReader::ShardReader(const std::string& path, ShardFormat format) : path_(path), file_(path) {
  const int64_t size = static_cast<int64_t>(file_.size());
  if (format == ShardFormat::raw_u16) {
    if (size % 2 != 0) bad(path, concat(size, " bytes, not a whole number of uint16 tokens; the file is cut short or of another format"));
    if (size == 0) bad(path, "empty");
    tokens_ = size / 2;
    return;
  }
  if (size < kShardHeaderBytes) bad(path, concat(size, " bytes, shorter than the header of 1024; the file is cut short or no token shard"));
  int32_t header[256];
  file_.read(0, header, sizeof header);
  if (header[0] == kMagicEval) bad(path, "an llm.c evaluation file (magic 20240522), not a token shard");
  if (std::memcmp(header, "MMIDIDX", 7) == 0) bad(path, "the index of a Megatron data set; write shards with `heddle tokenize`");
  if (header[0] != kMagicGpt2 && header[0] != kMagicLlama3) {
    bad(path, concat("no token shard: magic number ", header[0], " at offset 0, expected ", kMagicGpt2, " or ", kMagicLlama3,
                     "; write shards with `heddle tokenize`"));
  }
  const int32_t version = header[0] == kMagicGpt2 ? kVersionGpt2 : kVersionLlama3;
  if (header[1] != version) {
    bad(path, concat("version ", header[1], " at offset 4, expected ", version, " with magic ", header[0]));
  }
  token_bytes_ = header[0] == kMagicGpt2 ? 2 : 4;
  header_bytes_ = kShardHeaderBytes;
  tokens_ = header[2];
  if (tokens_ < 0) bad(path, concat("token count ", tokens_, " at offset 8 is negative"));
  for (int i = 3; i < 256; ++i) {
    if (header[i] != 0) bad(path, concat("header word ", i, " at offset ", 4 * i, " is ", header[i], ", expected 0"));
  }
  const int64_t expected = kShardHeaderBytes + tokens_ * token_bytes_;
  if (size != expected) {
    bad(path, concat(size, " bytes, but the header counts ", tokens_, " tokens of ", token_bytes_, " bytes, which makes ", expected,
                     size < expected ? "; the file is cut short: copy or write it again" : "; bytes follow the last token: copy or write it again"));
  }
}

uint32_t ShardReader::token(int64_t index) const {
  int32_t token;
  read(index, {&token, 1});
  return static_cast<uint32_t>(token);
}

void ShardReader::read(int64_t first, std::span<int32_t> to) const {
  HEDDLE_CHECK(first >= 0 && static_cast<int64_t>(to.size()) <= tokens_ - first, "shard", path_, ": tokens [", first, ", ", first, " + ", to.size(),
               ") of ", tokens_);
  if (to.empty()) return;
  file_.read(offset_of(first), to.data(), to.size() * static_cast<size_t>(token_bytes_));
  if (token_bytes_ == 2) widen({reinterpret_cast<uint32_t*>(to.data()), to.size()});
}

std::string ShardReader::scan(int64_t vocab, bool hash, const Look& look) const {
  Sha256 digest;
  std::vector<uint32_t> block(static_cast<size_t>(std::clamp<int64_t>(tokens_, kShardHeaderBytes / 4, kBlockTokens)));
  if (hash && header_bytes_ > 0) {
    file_.read(0, block.data(), static_cast<size_t>(header_bytes_));
    digest.update(block.data(), static_cast<size_t>(header_bytes_));
  }
  for (int64_t first = 0; first < tokens_; first += kBlockTokens) {
    const std::span<uint32_t> tokens(block.data(), static_cast<size_t>(std::min(kBlockTokens, tokens_ - first)));
    const size_t bytes = tokens.size() * static_cast<size_t>(token_bytes_);
    file_.read(offset_of(first), tokens.data(), bytes);
    if (hash) digest.update(tokens.data(), bytes);
    if (token_bytes_ == 2) widen(tokens);
    if (vocab > 0) {
      uint32_t largest = 0;
      for (const uint32_t token : tokens) largest = std::max(largest, token);
      if (largest >= vocab) {
        for (size_t i = 0; i < tokens.size(); ++i) check_token(tokens[i], first + static_cast<int64_t>(i), vocab);
      }
    }
    if (look) look(first, tokens);
  }
  return hash ? hex(digest.finish()) : "";
}

uint32_t ShardReader::largest_token() const {
  uint32_t largest = 0;
  scan(0, false, [&](int64_t, std::span<const uint32_t> tokens) {
    for (const uint32_t token : tokens) largest = std::max(largest, token);
  });
  return largest;
}

void ShardReader::check_tokens(int64_t vocab) const {
  HEDDLE_CHECK(vocab > 0 && vocab <= kShardMaxTokens, "shard", "vocabulary size ", vocab, " is not in [1, 2^31)");
  scan(vocab, false);
}

void ShardReader::check_token(uint32_t token, int64_t index, int64_t vocab) const {
  if (token < vocab) return;
  bad(path_, concat("token ", token, " at offset ", offset_of(index), " (token number ", index, ") is not below the vocabulary size ", vocab,
                    "; the shard belongs to another tokenizer or is damaged"));
}

ShardWriter::ShardWriter(std::string path, int64_t vocab)
    : path_(std::move(path)), temporary_(concat(path_, ".tmp", ::getpid())), vocab_(vocab), file_(temporary_) {
  HEDDLE_CHECK(vocab > 0 && vocab <= kShardMaxTokens, "shard", "vocabulary size ", vocab, " is not in [1, 2^31)");
  buffer_.reserve(kWriteBuffer + 4);
  const std::vector<char> header(kShardHeaderBytes);  // filled in by finish(), which knows the count
  file_.write(header.data(), header.size());
}

void ShardWriter::append(std::span<const int32_t> tokens) {
  HEDDLE_CHECK(static_cast<int64_t>(tokens.size()) <= kShardMaxTokens - tokens_, "shard", path_, ": more than 2^31 - 1 tokens");
  for (const int32_t token : tokens) {
    HEDDLE_CHECK(token >= 0 && token < vocab_, "shard", path_, ": token ", token, " is not in [0, ", vocab_, ")");
    const char* bytes = reinterpret_cast<const char*>(&token);
    buffer_.insert(buffer_.end(), bytes, bytes + (vocab_ <= 65536 ? 2 : 4));
    if (buffer_.size() >= kWriteBuffer) {
      file_.write(buffer_.data(), buffer_.size());
      buffer_.clear();
    }
  }
  tokens_ += static_cast<int64_t>(tokens.size());
}

std::string ShardWriter::finish() {
  file_.write(buffer_.data(), buffer_.size());
  buffer_.clear();
  int32_t header[256] = {};
  header[0] = vocab_ <= 65536 ? kMagicGpt2 : kMagicLlama3;
  header[1] = vocab_ <= 65536 ? kVersionGpt2 : kVersionLlama3;
  header[2] = static_cast<int32_t>(tokens_);
  file_.write_at(0, header, sizeof header);
  // The header comes first in the file and last in time, so the hash is taken from the written file.
  const std::string hash = SharedFile(temporary_).sha256();
  file_.close();
  rename_file(temporary_, path_);
  return hash;
}

}  // namespace heddle
