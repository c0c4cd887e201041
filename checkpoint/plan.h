// Who writes what: from every rank's pieces to the tensor table of the manifest and the layout of each shard.
#pragma once

#include <cstdint>
#include <new>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "core/io/safetensors.h"
#include "core/state.h"
#include "kernels/api/check.h"
#include "parallel/control.h"

namespace heddle {

inline constexpr uint64_t kMostShardHeaderBytes = uint64_t{16} << 20;

// A piece this rank holds. Pieces with the same tensor and box on several ranks are replicas: one rank, the owner, writes it; the others only
// compare.
struct HeldPiece {
  size_t entry = 0;      // index in the StateDict
  size_t tensor = 0;     // index in Plan::tensors
  size_t piece = 0;      // index in its pieces
  uint64_t offset = 0;   // bytes from the start of the owner's shard
  uint64_t replica = 0;  // number of this piece among all that are held by more than one rank; kSingle for the rest
  bool owned = false;
  static constexpr uint64_t kSingle = UINT64_MAX;
};

struct Plan {
  std::vector<SavedTensor> tensors;       // by name, with pieces in every shard
  std::vector<SafetensorsHeader> shards;  // layout of each rank's shard, metadata with zeros for step and incarnation
  std::vector<HeldPiece> held;            // of this rank, in StateDict order
  uint64_t replicas = 0;                  // pieces held by more than one rank
};

// Collective. Checks each entry (dense view, box inside the shape, sizes agree) and that the pieces of all ranks cover every tensor exactly.
// Throws Error(usage) on every rank.
Plan make_plan(const StateDict& state, Control& control);

// What a shard says of itself, under the key "heddle" of its metadata: fixed width, so that only digits change from save to save.
std::string shard_label(uint64_t shard, uint64_t shards, uint64_t step, uint64_t incarnation);

// Every rank's answer, in rank order; when one is an error, that error on all ranks. Collective. `error` wins over `text`. `seconds`: how long a rank
// may keep the others waiting (Error(hung)); 0: for ever.
std::vector<std::string> exchange(Control& control, const std::string& text, const Error* error, double seconds);

// exchange() of what `body` returns or throws, so that no rank is left waiting for one that failed.
template <class Body>
std::vector<std::string> agree(Control& control, Body body, double seconds = 0) {
  std::string text;
  try {
    text = body();
  } catch (const Error& e) {
    return exchange(control, {}, &e, seconds);
  } catch (const std::bad_alloc&) {
    const Error e("[checkpoint] out of host memory", ExitCode::runtime);
    return exchange(control, {}, &e, seconds);
  }
  return exchange(control, text, nullptr, seconds);
}

}  // namespace heddle
