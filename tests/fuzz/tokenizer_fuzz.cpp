// A tokenizer: a tokenizer.json, or GPT-2's encoder.json and vocab.bpe when the input begins with "gpt2\n", the two parted by a line "---".
// "$BYTES" in the JSON stands for the 256 single bytes with the ids 0 to 255, without which nothing is accepted and no small input could exist.
// Accepted: text of any bytes survives encoding and decoding, and the tokenizer is written again to one that behaves the same.
#include "data/tokenizer.h"
#include "tests/fuzz/target.h"

namespace heddle::fuzz {
namespace {

// See dataset_fuzz.cpp; a vocabulary is held as JSON, as tokens and as their index at one time.
constexpr Rules kRules = {{ExitCode::bad_data}, 64, size_t{2} << 20};
constexpr std::string_view kGpt2 = "gpt2\n", kPart = "\n---\n", kBytes = "$BYTES";

const std::string& all_bytes() {
  static const std::string text = [] {
    std::string out;
    for (int b = 0; b < 256; ++b) {
      const std::string spelled = byte_alphabet().spell(std::string(1, static_cast<char>(b)));
      if (b > 0) out += ',';
      out += '"';
      if (spelled == "\"" || spelled == "\\") out += '\\';
      out += spelled;
      out += concat("\":", b);
    }
    return out;
  }();
  return text;
}

std::string expanded(std::string_view json) {
  std::string text(json);
  if (const size_t at = text.find(kBytes); at != std::string::npos) text.replace(at, kBytes.size(), all_bytes());
  return text;
}

void check_coding(const Tokenizer& tokenizer, std::string_view text) {
  const std::vector<int32_t> ids = tokenizer.encode(text);
  require(ids.size() <= text.size(), "more tokens than bytes");
  size_t bytes = 0;
  for (const int32_t id : ids) {
    require(id >= 0 && id < tokenizer.vocab_size() && !tokenizer.is_special(id), "text gives the token ", id);
    bytes += tokenizer.bytes_of(id).size();
  }
  require(bytes == text.size() && tokenizer.decode(ids) == text, "text does not survive encoding and decoding");
  Encoder twice(tokenizer);  // the second time the pieces are remembered
  std::vector<int32_t> first, second;
  twice.encode(text, first);
  twice.encode(text, second);
  require(first == ids && second == ids, "an encoder that has met the text before encodes it differently");
  for (const int32_t id : tokenizer.encode_with_special(text)) require(id >= 0 && id < tokenizer.vocab_size(), "a prompt gives the token ", id);
}

void check_written(const Tokenizer& tokenizer, std::string_view text) {
  const std::string json = tokenizer.to_json();
  const Tokenizer again = Tokenizer::parse(json, "written");
  const TokenizerSpec &a = tokenizer.spec(), &b = again.spec();
  require(a.tokens == b.tokens && a.special == b.special && a.merges == b.merges, "tokens, special tokens or merges changed");
  require(a.split == b.split && a.ignore_merges == b.ignore_merges && a.eot == b.eot, "split rule, ignore_merges or end of text changed");
  require(tokenizer.fingerprint() == again.fingerprint(), "the fingerprint changed");
  require(again.to_json() == json, "writing what was written gives other bytes");
  require(tokenizer.encode(text) == again.encode(text), "the same text is encoded differently");
}

}  // namespace

void run_target(std::string_view input) {
  std::optional<Tokenizer> tokenizer;
  if (input.substr(0, kGpt2.size()) == kGpt2) {
    const std::string_view files = input.substr(kGpt2.size());
    const size_t part = std::min(files.find(kPart), files.size());
    const std::string encoder = expanded(files.substr(0, part));
    const std::string_view merges = files.substr(std::min(part + kPart.size(), files.size()));
    const MemoryFile encoder_file(encoder), merges_file(merges);
    tokenizer = parse_input(kRules, encoder.size() + merges.size(), [&] { return Tokenizer::load_gpt2(encoder_file.path(), merges_file.path()); });
  } else {
    const std::string json = expanded(input);
    tokenizer = parse_input(kRules, json.size(), [&] { return Tokenizer::parse(json, "input"); });
  }
  if (!tokenizer) return;
  const std::string_view text = input.substr(input.size() - std::min<size_t>(input.size(), 300));  // the end of the input: any bytes
  check_coding(*tokenizer, text);
  check_written(*tokenizer, text);
}

}  // namespace heddle::fuzz
