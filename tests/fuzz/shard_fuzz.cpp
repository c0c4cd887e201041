// A token shard. Three bytes choose, the rest is the file:
//   byte 0, bit 0: the file is as given; else its first 12 bytes are the first words of the header, whose other words are zero
//   byte 0, bit 1: the file is read as raw uint16 tokens, without a header
//   bytes 1 and 2: a vocabulary size, little-endian, for check_tokens()
// Accepted: every way to read a token gives the bytes of the file, and a writer given the tokens makes the same file.
#include <algorithm>
#include <cstring>

#include "data/file.h"
#include "data/shard.h"
#include "tests/fuzz/target.h"

namespace heddle::fuzz {
namespace {

constexpr Rules kRules = {{ExitCode::bad_data}, 0, size_t{64} << 10};  // opening reads the header

std::vector<uint32_t> tokens_of(std::string_view body, int token_bytes) {
  std::vector<uint32_t> tokens(body.size() / static_cast<size_t>(token_bytes));
  for (size_t i = 0; i < tokens.size(); ++i)
    std::memcpy(&tokens[i], body.data() + i * static_cast<size_t>(token_bytes), static_cast<size_t>(token_bytes));
  return tokens;
}

void check_reading(const ShardReader& shard, const std::vector<uint32_t>& tokens, std::string_view file) {
  require(shard.file_bytes() == file.size() && shard.sha256() == sha256_hex(file), "the file's size or hash is another");
  require(shard.tokens() == static_cast<int64_t>(tokens.size()), shard.tokens(), " tokens in a file of ", tokens.size());
  for (size_t i = 0; i < tokens.size(); ++i) require(shard.token(static_cast<int64_t>(i)) == tokens[i], "token ", i, " is read wrongly");
  const int64_t n = shard.tokens(), first = n / 3;
  std::vector<int32_t> read(static_cast<size_t>(n - first));
  shard.read(first, read);
  for (size_t i = 0; i < read.size(); ++i) require(static_cast<uint32_t>(read[i]) == tokens[i + static_cast<size_t>(first)], "read() differs");
  std::vector<int32_t> beyond(read.size() + 1);
  require(is_refused(ExitCode::runtime, [&] { shard.read(first, beyond); }), "read() goes beyond the last token");
  require(is_refused(ExitCode::runtime, [&] { shard.read(-1, read); }), "read() begins before the first token");
  if (tokens.empty()) return;
  require(shard.largest_token() == *std::max_element(tokens.begin(), tokens.end()), "largest_token() is another");
  std::vector<uint32_t> seen;
  const std::string hash = shard.scan(0, true, [&](int64_t at, std::span<const uint32_t> block) {
    require(at == static_cast<int64_t>(seen.size()), "scan() leaves tokens out");
    seen.insert(seen.end(), block.begin(), block.end());
  });
  require(seen == tokens && hash == sha256_hex(file), "scan() sees other tokens or another hash");
}

void check_writing(const std::vector<uint32_t>& tokens, int token_bytes, std::string_view file, bool raw) {
  const int64_t vocab = token_bytes == 2 ? 65536 : kShardMaxTokens;
  if (!tokens.empty() && *std::max_element(tokens.begin(), tokens.end()) >= vocab) return;  // such a shard can only be read
  const std::vector<int32_t> signed_tokens(tokens.begin(), tokens.end());
  const std::string path = scratch_folder() + "/shard.bin";
  ShardWriter writer(path, vocab);
  writer.append(signed_tokens);
  writer.finish();
  const std::string written = read_small_file(path, kShardHeaderBytes + 2 * file.size());
  if (raw) {
    require(std::string_view(written).substr(kShardHeaderBytes) == file, "a raw file's tokens are written differently");
  } else {
    require(written == file, "the shard is written with other bytes");
  }
}

}  // namespace

void run_target(std::string_view input) {
  Bytes bytes(input);
  const uint8_t mode = bytes.byte();
  const bool raw = (mode & 2) != 0;
  const auto vocab = static_cast<int64_t>(bytes.number(2));
  std::string file(bytes.rest());
  if ((mode & 3) == 0) file.insert(std::min<size_t>(file.size(), 12), kShardHeaderBytes - 12, '\0');
  const MemoryFile memory(file);
  const auto shard = parse_input(kRules, input.size(), [&] { return ShardReader(memory.path(), raw ? ShardFormat::raw_u16 : ShardFormat::header); });
  if (!shard) return;
  const std::vector<uint32_t> tokens = tokens_of(std::string_view(file).substr(raw ? 0 : kShardHeaderBytes), shard->token_bytes());
  check_reading(*shard, tokens, file);
  if (vocab > 0) {
    const bool fits = std::all_of(tokens.begin(), tokens.end(), [&](uint32_t t) { return t < vocab; });
    const auto checked = parse_input(kRules, input.size(), [&] { return shard->check_tokens(vocab), true; });
    require(checked.has_value() == fits, "check_tokens(", vocab, ") does not say whether all tokens are below");
  }
  check_writing(tokens, shard->token_bytes(), file, raw);
}

}  // namespace heddle::fuzz
