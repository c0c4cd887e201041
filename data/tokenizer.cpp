#include "data/tokenizer.h"

#include <algorithm>
#include <cstring>
#include <queue>
#include <tuple>

#include "core/io/sha256.h"
#include "data/name_finder.h"
#include "data/unicode.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

constexpr size_t kShortPiece = 48;               // quadratic merging up to here, a heap above
constexpr size_t kCacheSlots = size_t{1} << 17;  // of the encoder; half of them are filled before it starts again
constexpr size_t kCachedPiece = 48;              // longer pieces seldom come back

[[noreturn]] void bad(const std::string& place, const std::string& text, int line = __builtin_LINE()) {
  fail("tokenizer", concat(place, ": ", text), ExitCode::bad_data, __FILE__, line);
}

uint64_t hash_bytes(std::string_view text) {
  uint64_t hash = text.size() * 0x9E3779B97F4A7C15u;
  const auto mix = [&](uint64_t word) {
    hash = (hash ^ word) * 0xBF58476D1CE4E5B9u;
    hash ^= hash >> 29;
  };
  size_t at = 0;
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    mix(word);
  }
  if (at < text.size()) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + at, text.size() - at);
    mix(word);
  }
  return hash ^ (hash >> 32);
}

}  // namespace

ByteAlphabet::ByteAlphabet() {
  byte.fill(-1);
  uint16_t next = 0x100;
  size_t printable = 0, other = 188;
  for (int b = 0; b < 256; ++b) {
    const bool itself = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
    code[static_cast<size_t>(b)] = itself ? static_cast<uint16_t>(b) : next++;
    byte[code[static_cast<size_t>(b)]] = static_cast<int16_t>(b);
    order[itself ? printable++ : other++] = static_cast<uint8_t>(b);
  }
}

std::string ByteAlphabet::spell(std::string_view bytes) const {
  std::string text;
  for (const char c : bytes) {
    const uint16_t point = code[static_cast<unsigned char>(c)];
    if (point < 0x80) {
      text += static_cast<char>(point);
    } else {
      text += static_cast<char>(0xC0 | point >> 6);
      text += static_cast<char>(0x80 | (point & 0x3F));
    }
  }
  return text;
}

bool ByteAlphabet::read(std::string_view spelled, std::string& bytes) const {
  bytes.clear();
  for (size_t at = 0; at < spelled.size();) {
    const unicode::Decoded character = unicode::decode(spelled, at);
    if (character.code >= byte.size() || byte[character.code] < 0) return false;
    bytes += static_cast<char>(byte[character.code]);
    at += character.length;
  }
  return true;
}

const ByteAlphabet& byte_alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

Tokenizer::Tokenizer(TokenizerSpec spec, const std::string& place)
    : spec_(std::move(spec)), special_(spec_.tokens.size()), merge_index_(spec_.merges.size()) {
  const int64_t size = static_cast<int64_t>(spec_.tokens.size());
  if (size > INT32_MAX) bad(place, concat(size, " tokens"));
  for (const int32_t id : spec_.special) {
    if (id < 0 || id >= size) bad(place, concat("special token ", id, " is not in [0, ", size, ")"));
    special_[static_cast<size_t>(id)] = true;
  }
  if (spec_.eot < 0 || spec_.eot >= size || !special_[static_cast<size_t>(spec_.eot)]) bad(place, "the end-of-text token is no special token");
  byte_ids_.fill(-1);
  std::unordered_map<std::string_view, int32_t> ids;
  ids.reserve(spec_.tokens.size());
  for (int32_t id = 0; id < size; ++id) {
    const std::string& bytes = spec_.tokens[static_cast<size_t>(id)];
    if (bytes.empty()) bad(place, concat("token ", id, " is empty"));
    if (special_[static_cast<size_t>(id)]) continue;
    if (!ids.emplace(bytes, id).second) bad(place, concat("tokens ", ids[bytes], " and ", id, " are the same bytes"));
    if (bytes.size() == 1) byte_ids_[static_cast<unsigned char>(bytes[0])] = id;
  }
  for (int b = 0; b < 256; ++b) {
    if (byte_ids_[static_cast<size_t>(b)] < 0)
      bad(place, concat("no token for byte ", b, "; only byte-level vocabularies, which hold all 256, are read"));
  }
  for (size_t rank = 0; rank < spec_.merges.size(); ++rank) {
    const auto [a, b] = spec_.merges[rank];
    const auto ordinary = [&](int32_t id) { return id >= 0 && id < size && !special_[static_cast<size_t>(id)]; };
    if (!ordinary(a) || !ordinary(b)) bad(place, concat("merge ", rank, " names a token that does not exist"));
    const auto merged = ids.find(spec_.tokens[static_cast<size_t>(a)] + spec_.tokens[static_cast<size_t>(b)]);
    if (merged == ids.end()) bad(place, concat("merge ", rank, " (tokens ", a, ", ", b, ") makes bytes that are no token"));
    const size_t known = merge_index_.size();
    merge_index_.insert(a, b, static_cast<uint32_t>(rank));
    if (merge_index_.size() == known) bad(place, concat("merge ", rank, " (tokens ", a, ", ", b, ") appears twice"));
    merge_results_.push_back(merged->second);
  }
  if (spec_.ignore_merges) ids_ = std::move(ids);
  std::sort(spec_.special.begin(), spec_.special.end());
}

Tokenizer Tokenizer::bytes() {
  TokenizerSpec spec;
  for (int b = 0; b < 256; ++b) spec.tokens.emplace_back(1, static_cast<char>(b));
  spec.tokens.emplace_back(kEndOfText);
  spec.special = {256};
  spec.eot = 256;
  return Tokenizer(std::move(spec));
}

std::vector<int32_t> Tokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  Encoder(*this).encode(text, ids);
  return ids;
}

std::vector<int32_t> Tokenizer::encode_with_special(std::string_view text) const {
  std::vector<std::string_view> names;
  for (const int32_t id : spec_.special) names.push_back(text_of(id));
  const std::vector<int32_t> found = NameFinder(names).longest(text);
  std::vector<int32_t> ids;
  Encoder encoder(*this);
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    if (found[at] < 0) {
      ++at;
      continue;
    }
    encoder.encode(text.substr(begin, at - begin), ids);
    ids.push_back(spec_.special[static_cast<size_t>(found[at])]);
    at += names[static_cast<size_t>(found[at])].size();
    begin = at;
  }
  encoder.encode(text.substr(begin), ids);
  return ids;
}

void Tokenizer::check_id(int32_t id) const {
  HEDDLE_CHECK(id >= 0 && id < vocab_size(), "tokenizer", "token ", id, " is not in [0, ", vocab_size(), ")");
}

std::string Tokenizer::decode(std::span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) text += bytes_of(id);
  return text;
}

std::string_view Tokenizer::bytes_of(int32_t id) const {
  check_id(id);
  return is_special(id) ? std::string_view() : std::string_view(spec_.tokens[static_cast<size_t>(id)]);
}

std::string_view Tokenizer::text_of(int32_t id) const {
  check_id(id);
  return spec_.tokens[static_cast<size_t>(id)];
}

std::string Tokenizer::fingerprint() const {
  // Every variable part is preceded by its length, so different tokenizers never give the same bytes.
  Sha256 hash;
  hash.update(concat("heddle-tokenizer-1\nsplit ", static_cast<int>(spec_.split), "\nignore_merges ", spec_.ignore_merges, "\neot ", spec_.eot,
                     "\ntokens ", spec_.tokens.size(), "\n"));
  for (size_t id = 0; id < spec_.tokens.size(); ++id) hash.update(concat(special_[id] ? "s" : "t", spec_.tokens[id].size(), ":", spec_.tokens[id]));
  hash.update(concat("\nmerges ", spec_.merges.size(), "\n"));
  for (const auto& [a, b] : spec_.merges) hash.update(concat(a, " ", b, "\n"));
  return hex(hash.finish());
}

Encoder::Encoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}

void Encoder::encode(std::string_view text, std::vector<int32_t>& out) {
  if (tokenizer_.spec_.merges.empty() && !tokenizer_.spec_.ignore_merges) {
    for (const char c : text) out.push_back(tokenizer_.byte_ids_[static_cast<unsigned char>(c)]);
    return;
  }
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(tokenizer_.spec_.split, text, begin);
    encode_piece(text.substr(begin, end - begin), out);
    begin = end;
  }
}

void Encoder::encode_piece(std::string_view piece, std::vector<int32_t>& out) {
  if (piece.size() == 1) {
    out.push_back(tokenizer_.byte_ids_[static_cast<unsigned char>(piece[0])]);
    return;
  }
  if (piece.size() > kCachedPiece) return merge_piece(piece, out);
  if (slots_.empty()) slots_.resize(kCacheSlots);
  const uint64_t hash = hash_bytes(piece);
  size_t at = hash & (kCacheSlots - 1);
  for (; slots_[at].key_length > 0; at = (at + 1) & (kCacheSlots - 1)) {
    const Slot& slot = slots_[at];
    if (slot.hash == hash && slot.key_length == piece.size() && std::memcmp(keys_.data() + slot.key_begin, piece.data(), piece.size()) == 0) {
      out.insert(out.end(), ids_.begin() + slot.ids_begin, ids_.begin() + slot.ids_begin + slot.ids_length);
      return;
    }
  }
  const size_t first = out.size();
  merge_piece(piece, out);
  if (2 * (used_ + 1) > kCacheSlots) return forget();
  slots_[at] = {hash, static_cast<uint32_t>(keys_.size()), static_cast<uint32_t>(piece.size()), static_cast<uint32_t>(ids_.size()),
                static_cast<uint32_t>(out.size() - first)};
  ++used_;
  keys_ += piece;
  ids_.insert(ids_.end(), out.begin() + static_cast<std::ptrdiff_t>(first), out.end());
}

void Encoder::forget() {
  std::fill(slots_.begin(), slots_.end(), Slot{});
  keys_.clear();
  ids_.clear();
  used_ = 0;
}

void Encoder::merge_piece(std::string_view piece, std::vector<int32_t>& out) {
  if (tokenizer_.spec_.ignore_merges) {
    if (const auto whole = tokenizer_.ids_.find(piece); whole != tokenizer_.ids_.end()) {
      out.push_back(whole->second);
      return;
    }
  }
  if (piece.size() <= kShortPiece) return merge_short(piece, out);
  merge_long(piece, out);
}

void Encoder::merge_short(std::string_view piece, std::vector<int32_t>& out) {
  int32_t ids[kShortPiece];
  uint32_t ranks[kShortPiece];  // of the pair (i, i + 1); PairMap::kNone, the largest value, for none
  size_t count = piece.size();
  const PairMap& index = tokenizer_.merge_index_;
  for (size_t i = 0; i < count; ++i) ids[i] = tokenizer_.byte_ids_[static_cast<unsigned char>(piece[i])];
  for (size_t i = 0; i + 1 < count; ++i) ranks[i] = index.find(ids[i], ids[i + 1]);
  while (count > 1) {
    const size_t at = static_cast<size_t>(std::min_element(ranks, ranks + count - 1) - ranks);
    if (ranks[at] == PairMap::kNone) break;
    ids[at] = tokenizer_.merge_results_[ranks[at]];
    std::copy(ids + at + 2, ids + count, ids + at + 1);
    if (at + 2 < count) std::copy(ranks + at + 2, ranks + count - 1, ranks + at + 1);
    --count;
    if (at > 0) ranks[at - 1] = index.find(ids[at - 1], ids[at]);
    if (at + 1 < count) ranks[at] = index.find(ids[at], ids[at + 1]);
  }
  out.insert(out.end(), ids, ids + count);
}

// A linked list of symbols and a heap of candidate merges; entries whose symbols have changed are dropped when they surface.
void Encoder::merge_long(std::string_view piece, std::vector<int32_t>& out) {
  struct Symbol {
    int32_t id;
    int64_t previous, next;
  };
  using Entry = std::tuple<uint32_t, int64_t, int32_t, int32_t>;  // rank, place of the left symbol, the two ids
  const int64_t count = static_cast<int64_t>(piece.size());
  std::vector<Symbol> symbols(piece.size());
  for (int64_t i = 0; i < count; ++i) {
    symbols[static_cast<size_t>(i)] = {tokenizer_.byte_ids_[static_cast<unsigned char>(piece[static_cast<size_t>(i)])], i - 1,
                                       i + 1 < count ? i + 1 : -1};
  }
  const auto symbol = [&](int64_t i) -> Symbol& { return symbols[static_cast<size_t>(i)]; };
  std::vector<Entry> entries;
  const auto candidate = [&](int64_t left) -> std::pair<bool, Entry> {
    if (left < 0 || symbol(left).next < 0) return {false, {}};
    const int32_t a = symbol(left).id, b = symbol(symbol(left).next).id;
    const uint32_t rank = tokenizer_.merge_index_.find(a, b);
    return {rank != PairMap::kNone, Entry{rank, left, a, b}};
  };
  for (int64_t i = 0; i < count; ++i) {
    if (const auto [found, entry] = candidate(i); found) entries.push_back(entry);
  }
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> heap(std::greater<>(), std::move(entries));
  while (!heap.empty()) {
    const auto [rank, left, a, b] = heap.top();
    heap.pop();
    const int64_t right = symbol(left).next;
    if (symbol(left).id != a || right < 0 || symbol(right).id != b) continue;
    symbol(left).id = tokenizer_.merge_results_[rank];
    symbol(left).next = symbol(right).next;
    if (symbol(left).next >= 0) symbol(symbol(left).next).previous = left;
    symbol(right).id = -1;
    for (const int64_t at : {symbol(left).previous, left}) {
      if (const auto [found, entry] = candidate(at); found) heap.push(entry);
    }
  }
  for (int64_t i = 0; i >= 0; i = symbol(i).next) out.push_back(symbol(i).id);
}

}  // namespace heddle
