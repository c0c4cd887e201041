// Names in a text: which of them begins at each place, the longest first. Internal to the tokenizer, whose special tokens have names.
//
// An automaton of Aho and Corasick (CACM 1975) over the names and the text, both read backwards: what ends there begins here. The work is the length
// of the names and the text together, however many names there are and however they repeat one another.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "data/pair_map.h"

namespace heddle {

class NameFinder {
 public:
  // Of equal names the first counts. Names are not empty.
  explicit NameFinder(const std::vector<std::string_view>& names);
  // For each byte of the text the number of the longest name that begins there, or -1.
  std::vector<int32_t> longest(std::string_view text) const;

 private:
  struct State {
    int32_t shorter = 0;  // the state of the longest proper ending that is a beginning too
    int32_t name = -1;    // the longest name that is an ending of this state
    int32_t first = -1;   // the state that the first byte seen after this one leads to, so that most steps look nowhere else
    unsigned char byte = 0;
    bool branches = false;  // other bytes lead on too; next_ knows where
  };
  int32_t step(int32_t state, unsigned char byte) const;
  PairMap next_;
  std::vector<State> states_;
};

}  // namespace heddle
