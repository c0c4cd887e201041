#include "data/bpe_trainer.h"

#include <algorithm>
#include <queue>
#include <vector>

#include "data/pair_map.h"
#include "kernels/api/check.h"

namespace heddle {
namespace {

// Counts of all adjacent pairs, kept up to date merge by merge. The symbols of all words lie after one another and are linked to their neighbours; a
// merge visits the places of its pair and nothing else, so all merges together cost no more than the text has symbols, however long a word is.
class PairCounts {
 public:
  void add_word(const std::vector<int32_t>& symbols, int64_t count) {
    if (symbols.size() > kNone - symbols_.size()) fail("bpe", "more than 4 GiB of different words; train on a part of the text", ExitCode::usage);
    const auto first = static_cast<uint32_t>(symbols_.size()), word = static_cast<uint32_t>(counts_.size());
    counts_.push_back(count);
    for (size_t i = 0; i < symbols.size(); ++i) {
      const uint32_t at = first + static_cast<uint32_t>(i);
      symbols_.push_back({symbols[i], word, i > 0 ? at - 1 : kNone, i + 1 < symbols.size() ? at + 1 : kNone});
    }
    for (uint32_t at = first; at + 1 < symbols_.size(); ++at) change(symbols_[at].id, symbols_[at + 1].id, count, at);
  }

  // The most frequent pair; false when none is left.
  bool best(int32_t& a, int32_t& b) {
    push_touched();
    while (!heap_.empty()) {
      const Entry top = heap_.top();
      const Pair& pair = pairs_[top.pair];
      if (top.count == pair.count && top.count > 0) {
        a = pair.a;
        b = pair.b;
        return true;
      }
      // The count has changed since; an increase has its own entry.
      heap_.pop();
      if (pair.count > 0 && pair.count < top.count) heap_.push({pair.count, pair.a, pair.b, top.pair});
    }
    return false;
  }

  void merge(int32_t a, int32_t b, int32_t merged) {
    const uint32_t index = index_.find(a, b);
    std::vector<uint32_t> places = std::move(pairs_[index].places);
    pairs_[index].places.clear();
    if (a == b) std::sort(places.begin(), places.end());  // in a run like "aaaa" the merges depend on where one begins: at its front
    for (const uint32_t place : places) merge_at(place, a, b, merged);
    pairs_[index].count = 0;  // runs count overlapping pairs, of which every other one is merged away
  }

 private:
  static constexpr uint32_t kNone = 0xFFFFFFFF;
  struct Symbol {
    int32_t id;  // -1: merged into the one before
    uint32_t word;
    uint32_t previous, next;
  };
  struct Pair {
    int32_t a, b;
    int64_t count = 0;
    bool touched = false;          // its count grew since the heap was last told
    std::vector<uint32_t> places;  // of its left symbol: a superset, with repetitions
  };
  struct Entry {
    int64_t count;
    int32_t a, b;
    uint32_t pair;
    bool operator<(const Entry& other) const {
      if (count != other.count) return count < other.count;
      return a != other.a ? a > other.a : b > other.b;
    }
  };

  void change(int32_t a, int32_t b, int64_t by, uint32_t place) {
    const uint32_t index = index_.insert(a, b, static_cast<uint32_t>(pairs_.size()));
    if (index == pairs_.size()) pairs_.push_back({a, b});
    Pair& pair = pairs_[index];
    pair.count += by;
    if (by <= 0) return;
    pair.places.push_back(place);
    if (!pair.touched) {
      pair.touched = true;
      touched_.push_back(index);
    }
  }

  void push_touched() {
    for (const uint32_t index : touched_) {
      Pair& pair = pairs_[index];
      pair.touched = false;
      if (pair.count > 0) heap_.push({pair.count, pair.a, pair.b, index});
    }
    touched_.clear();
  }

  void merge_at(uint32_t place, int32_t a, int32_t b, int32_t merged) {
    Symbol& left = symbols_[place];
    if (left.id != a || left.next == kNone || symbols_[left.next].id != b) return;
    Symbol& right = symbols_[left.next];
    const int64_t count = counts_[left.word];
    if (left.previous != kNone) {
      const int32_t before = symbols_[left.previous].id;
      change(before, a, -count, left.previous);
      change(before, merged, count, left.previous);
    }
    if (right.next != kNone) {
      const int32_t after = symbols_[right.next].id;
      change(b, after, -count, place);
      change(merged, after, count, place);
      symbols_[right.next].previous = place;
    }
    left.id = merged;
    left.next = right.next;
    right.id = -1;
  }

  std::vector<int64_t> counts_;  // how often each word occurs
  std::vector<Symbol> symbols_;
  std::vector<Pair> pairs_;
  PairMap index_;
  std::vector<uint32_t> touched_;
  std::priority_queue<Entry> heap_;
};

}  // namespace

void BpeTrainer::add(std::string_view text) {
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(split_, text, begin);
    const std::string_view piece = text.substr(begin, end - begin);
    begin = end;
    if (piece.size() < 2) continue;  // nothing to merge
    if (const auto found = pieces_.find(piece); found != pieces_.end()) {
      ++found->second;
    } else {
      pieces_.emplace(piece, 1);
    }
  }
}

Tokenizer BpeTrainer::train(int64_t vocab) const {
  if (vocab < 257 || vocab > int64_t{1} << 24) {
    fail("bpe", concat("vocabulary size ", vocab, " is not in [257, 2^24]: 256 bytes and the end-of-text token come first"), ExitCode::usage);
  }
  TokenizerSpec spec;
  spec.split = split_;
  std::array<int32_t, 256> byte_ids{};
  std::unordered_map<std::string, int32_t> ids;
  const auto add_token = [&](std::string bytes) {
    const auto [at, fresh] = ids.emplace(bytes, static_cast<int32_t>(spec.tokens.size()));
    if (fresh) spec.tokens.push_back(std::move(bytes));
    return at->second;
  };
  for (const uint8_t byte : byte_alphabet().order) byte_ids[byte] = add_token(std::string(1, static_cast<char>(byte)));

  PairCounts counts;
  std::vector<int32_t> symbols;
  for (const auto& [piece, count] : pieces_) {
    symbols.clear();
    for (const char c : piece) symbols.push_back(byte_ids[static_cast<unsigned char>(c)]);
    counts.add_word(symbols, count);
  }
  PairMap merged_before;
  const size_t wanted = static_cast<size_t>(vocab) - 1;
  while (spec.tokens.size() < wanted) {
    int32_t a = 0, b = 0;
    if (!counts.best(a, b)) {
      fail("bpe",
           concat("the text has pairs for ", spec.tokens.size() + 1, " tokens only, ", vocab, " were asked for; ask for fewer or give more text"),
           ExitCode::usage);
    }
    // Two pairs may spell the same bytes: they share the token, and the vocabulary does not grow. A pair that comes back through a shared token
    // already has its rank.
    const int32_t merged = add_token(spec.tokens[static_cast<size_t>(a)] + spec.tokens[static_cast<size_t>(b)]);
    const size_t known = merged_before.size();
    merged_before.insert(a, b, 0);
    if (merged_before.size() > known) spec.merges.push_back({a, b});
    counts.merge(a, b, merged);
  }
  spec.eot = static_cast<int32_t>(spec.tokens.size());
  spec.special = {spec.eot};
  spec.tokens.emplace_back(kEndOfText);
  return Tokenizer(std::move(spec), "trained tokenizer");
}

}  // namespace heddle
