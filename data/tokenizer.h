// Byte-level BPE tokenizers: text to token ids and back, any bytes, without loss.
//
// Encoding cuts text into pieces (splitter.h), starts each piece as its bytes and repeatedly merges the adjacent pair of lowest rank, leftmost
// on ties, until no pair has a rank (Sennrich et al., "Neural machine translation of rare words with subword units", ACL 2016; Radford et al.,
// GPT-2). `bytes` is the case without merges. Files are Hugging Face tokenizer.json, read and written; GPT-2's encoder.json + vocab.bpe are read.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "data/pair_map.h"
#include "data/splitter.h"

namespace heddle {

inline constexpr char kEndOfText[] = "<|endoftext|>";

// What a tokenizer is made of. Token ids are the indices of `tokens`.
struct TokenizerSpec {
  std::vector<std::string> tokens;             // the bytes of each token; of a special token its name
  std::vector<int32_t> special;                // ids that no text gives: end of text and the like
  std::vector<std::array<int32_t, 2>> merges;  // in rank order; the concatenated bytes must be a token
  SplitRule split = SplitRule::none;
  bool ignore_merges = false;  // a piece that is a token becomes that token before any merging (Llama-3)
  int32_t eot = -1;            // one of `special`
};

class Tokenizer {
 public:
  // Checks the spec: all 256 bytes are tokens, no token twice, merges close over the vocabulary. Error(bad_data) names `place`.
  explicit Tokenizer(TokenizerSpec spec, const std::string& place = "tokenizer");

  static Tokenizer bytes();                        // ids 0 .. 255 are the bytes, 256 is <|endoftext|>
  static Tokenizer load(const std::string& path);  // a tokenizer.json, at most 100 MB, or a folder with one, or with encoder.json + vocab.bpe
  static Tokenizer parse(std::string_view json, const std::string& place);
  static Tokenizer load_gpt2(const std::string& encoder_json, const std::string& vocab_bpe);
  std::string to_json() const;               // the tokenizer.json that Hugging Face's tokenizers reads
  void save(const std::string& path) const;  // by rename

  // Ordinary text: the names of special tokens in it are text like any other. Invalid UTF-8 is fine. Builds an Encoder each time: use that
  // class for much text.
  std::vector<int32_t> encode(std::string_view text) const;
  // The same, but names of special tokens become those tokens (longest first). For prompts, never for training text.
  std::vector<int32_t> encode_with_special(std::string_view text) const;
  // The bytes of the tokens; special tokens give none. Error for an id outside [0, vocab_size()).
  std::string decode(std::span<const int32_t> ids) const;

  int32_t vocab_size() const { return static_cast<int32_t>(spec_.tokens.size()); }
  int32_t eot() const { return spec_.eot; }
  bool is_special(int32_t id) const { return special_[static_cast<size_t>(id)]; }
  // The bytes of text that a token stands for; none for a special token. bits per byte divide by the sum of these lengths.
  std::string_view bytes_of(int32_t id) const;
  // How to show a token: its bytes, or the name of a special token.
  std::string_view text_of(int32_t id) const;
  // SHA-256 over everything that decides encoding and decoding; equal for equal behaviour however the file is spelled.
  std::string fingerprint() const;
  const TokenizerSpec& spec() const { return spec_; }

 private:
  friend class Encoder;
  struct Merge {
    int32_t rank, id;
  };
  TokenizerSpec spec_;
  std::vector<bool> special_;
  std::array<int32_t, 256> byte_ids_{};
  PairMap merge_index_;  // (left, right) -> index into merge_results_, which is the rank
  std::vector<int32_t> merge_results_;
  std::unordered_map<std::string_view, int32_t> ids_;  // of ordinary tokens; filled only for ignore_merges
  void check_id(int32_t id) const;

 public:
  // Views in ids_ point into spec_.tokens.
  Tokenizer(Tokenizer&&) = default;
  Tokenizer& operator=(Tokenizer&&) = default;
  Tokenizer(const Tokenizer&) = delete;
  Tokenizer& operator=(const Tokenizer&) = delete;
};

// Encodes with one tokenizer and remembers the pieces it has met: one object a thread. The result never depends on what is remembered.
class Encoder {
 public:
  explicit Encoder(const Tokenizer& tokenizer);                   // keeps a reference
  void encode(std::string_view text, std::vector<int32_t>& out);  // appends

 private:
  struct Slot {
    uint64_t hash = 0;
    uint32_t key_begin = 0, key_length = 0, ids_begin = 0, ids_length = 0;  // key_length 0: empty
  };
  void encode_piece(std::string_view piece, std::vector<int32_t>& out);
  void merge_piece(std::string_view piece, std::vector<int32_t>& out);
  void merge_short(std::string_view piece, std::vector<int32_t>& out);
  void merge_long(std::string_view piece, std::vector<int32_t>& out);
  void forget();

  const Tokenizer& tokenizer_;
  std::vector<Slot> slots_;
  size_t used_ = 0;
  std::string keys_;
  std::vector<int32_t> ids_;
};

// Internal: GPT-2's map between bytes and printable code points, in which tokenizer files write tokens.
struct ByteAlphabet {
  std::array<uint16_t, 256> code{};   // byte -> code point, below 0x144
  std::array<int16_t, 0x144> byte{};  // code point -> byte, or -1
  std::array<uint8_t, 256> order{};   // the bytes in ascending order of their code points: GPT-2's and Hugging Face's ids of single bytes
  ByteAlphabet();
  std::string spell(std::string_view bytes) const;                // UTF-8 of the code points
  bool read(std::string_view spelled, std::string& bytes) const;  // false when a character stands for no byte
};
const ByteAlphabet& byte_alphabet();

}  // namespace heddle
