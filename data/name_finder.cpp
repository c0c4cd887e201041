#include "data/name_finder.h"

#include <utility>

namespace heddle {

NameFinder::NameFinder(const std::vector<std::string_view>& names) : states_(1) {
  std::vector<std::pair<int32_t, unsigned char>> came = {{0, 0}};  // from which state by which byte
  std::vector<std::vector<int32_t>> levels;                        // states by their depth
  for (size_t n = 0; n < names.size(); ++n) {
    int32_t state = 0;
    for (size_t depth = 0; depth < names[n].size(); ++depth) {
      const auto byte = static_cast<unsigned char>(names[n][names[n].size() - 1 - depth]);
      const auto fresh = static_cast<int32_t>(states_.size());
      State& from = states_[static_cast<size_t>(state)];
      if (from.first < 0) {
        from.first = fresh;
        from.byte = byte;
      }
      const bool first = from.byte == byte;
      from.branches = from.branches || !first;
      const int32_t to = first ? from.first : static_cast<int32_t>(next_.insert(state, byte, static_cast<uint32_t>(fresh)));
      if (to == fresh) {
        states_.emplace_back();
        came.emplace_back(state, byte);
        if (levels.size() == depth) levels.emplace_back();
        levels[depth].push_back(fresh);
      }
      state = to;
    }
    if (states_[static_cast<size_t>(state)].name < 0) states_[static_cast<size_t>(state)].name = static_cast<int32_t>(n);
  }
  for (const std::vector<int32_t>& level : levels) {
    for (const int32_t at : level) {
      const auto [from, byte] = came[static_cast<size_t>(at)];
      State& state = states_[static_cast<size_t>(at)];
      state.shorter = from == 0 ? 0 : step(states_[static_cast<size_t>(from)].shorter, byte);
      if (state.name < 0) state.name = states_[static_cast<size_t>(state.shorter)].name;
    }
  }
}

int32_t NameFinder::step(int32_t state, unsigned char byte) const {
  for (;;) {
    const State& s = states_[static_cast<size_t>(state)];
    if (s.first >= 0 && s.byte == byte) return s.first;
    if (s.branches) {
      if (const uint32_t to = next_.find(state, byte); to != PairMap::kNone) return static_cast<int32_t>(to);
    }
    if (state == 0) return 0;
    state = s.shorter;
  }
}

std::vector<int32_t> NameFinder::longest(std::string_view text) const {
  std::vector<int32_t> found(text.size());
  int32_t state = 0;
  for (size_t i = text.size(); i-- > 0;) {
    state = step(state, static_cast<unsigned char>(text[i]));
    found[i] = states_[static_cast<size_t>(state)].name;
  }
  return found;
}

}  // namespace heddle
