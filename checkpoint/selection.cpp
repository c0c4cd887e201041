#include "checkpoint/selection.h"

#include <algorithm>

namespace heddle {

bool is_dead(const CheckpointId& id, std::span<const std::pair<uint64_t, Base>> bases) {
  return std::any_of(bases.begin(), bases.end(), [&](const auto& entry) { return entry.first > id.incarnation && entry.second.from.step < id.step; });
}

std::vector<Candidate> order_candidates(std::span<const CheckpointId> committed, std::span<const std::pair<uint64_t, Base>> bases) {
  std::vector<Candidate> out;
  for (const CheckpointId& id : committed) out.push_back({id, is_dead(id, bases)});
  std::sort(out.begin(), out.end(), [](const Candidate& a, const Candidate& b) { return a.id > b.id; });
  return out;
}

}  // namespace heddle
