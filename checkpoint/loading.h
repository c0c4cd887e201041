// From a verified checkpoint into a state, and digests of both.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "checkpoint/reader.h"
#include "core/state.h"

namespace heddle {

using CopyIn = std::function<void(const View& to, const std::byte* from, size_t bytes)>;
using CopyOut = std::function<void(std::byte* to, const View& from, size_t bytes)>;

struct TensorIdentity {
  std::string_view name;
  DType dtype = DType::f32;
  std::span<const int64_t> global;
};

// Among names that begin with `prefix` the checkpoint must hold exactly the wanted tensors (of all ranks, in any order, repeated or not): missing,
// unexpected and mis-shaped ones are listed all at once, Error(bad_data).
void check_tensors(const CheckpointReader& reader, std::span<const TensorIdentity> wanted, std::string_view prefix);

inline constexpr int64_t kMostStaged = int64_t{64} << 20;  // bytes of host memory at a time between a device and a file or a hash

// Fills every entry of `into` whose name begins with `prefix`. check_tensors() has passed. What copy_in brings to a device is read in parts of at
// most `most_staged` bytes, or a row of a tensor's first axis.
void read_state(const CheckpointReader& reader, const StateDict& into, std::string_view prefix, const CopyIn& copy_in,
                int64_t most_staged = kMostStaged);

uint64_t fold_state_entry(const StateDict::Entry& entry, const CopyOut& copy_out, int64_t most_staged = kMostStaged);

// Opens what `path` names: a checkpoint directory, its MANIFEST, or a run directory, whose newest verified checkpoint of the current branch it is.
// Changes nothing on disk.
CheckpointReader open_checkpoint(FileSystem& fs, const std::string& path);

// The digest of what an open checkpoint holds (see checkpoints.h).
std::string digest(const CheckpointReader& reader);

}  // namespace heddle
