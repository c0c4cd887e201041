// Which checkpoint of a run is the newest, and which are dead.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "checkpoint/run_directory.h"

namespace heddle {

// The branch rule: a checkpoint of incarnation j is dead when a later incarnation began at a lower step, for then training went on from there
// without it. Covers writers that outlive their job and jobs that rolled back.
bool is_dead(const CheckpointId& id, std::span<const std::pair<uint64_t, Base>> bases);

struct Candidate {
  CheckpointId id;
  bool dead = false;
};
// Newest first, by (step, incarnation).
std::vector<Candidate> order_candidates(std::span<const CheckpointId> committed, std::span<const std::pair<uint64_t, Base>> bases);

}  // namespace heddle
