// Checkpoints of a run: crash-safe, checksummed, loadable on any world size.
//
//   Checkpoints checkpoints(run, comm, options);                      // lock, incarnation
//   if (auto found = checkpoints.find_newest(resume)) {               // verified to the last byte
//     ... build the model from found->config ...
//     checkpoints.load(state);
//   }
//   checkpoints.prepare(state);                                       // every buffer a save needs
//   ... after the optimizer of step s: checkpoints.save(s, state, config);
//   ... at the end, or before exit 75: checkpoints.wait();
//
// One rename of one small file commits a save, after everything it vouches for is on the disk; until then the checkpoint does not exist. A save is
// copied at once and written by a thread of its own; between prepare() and the commit nothing is allocated (one rank; with more, control messages
// are). All members are collective over `comm`. With more than one rank, the split communicator's gather_text is called from the writing thread.
//
// A job that loses its machine restarts with find_newest(): the newest checkpoint that verifies on the current branch. Each start is an incarnation,
// numbered by exclusive create, and writes down where it began; checkpoints that later incarnations went back behind are dead.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/io/file_system.h"
#include "core/state.h"
#include "parallel/control.h"

namespace heddle {

// A save's copy of a state in device memory, for which the training thread does not wait: it queues copies and goes on. Absent members: copies are
// made at once, by CheckpointOptions::copy_out, into plain memory.
struct QueuedCopies {
  std::function<std::shared_ptr<std::byte[]>(size_t bytes)> memory;  // for queued copies to write (pinned); throws when there is none
  // Dense bytes; after what the device has been given by now, before what it is given next. The memory is that of memory().
  std::function<void(std::byte* to, const View& from, size_t bytes)> queue;
  // Called after the last of a save. The writing thread calls what it returns, which waits for them all, and throws where one failed.
  std::function<std::function<void()>()> queued;
};

struct CheckpointOptions {
  int keep_last = 3;        // newest checkpoints that retention keeps, at least 2, whichever start saved them
  uint64_t keep_every = 0;  // checkpoints of steps that are multiples of this stay for ever; 0: none
  int scrub_every = 0;      // after each n-th commit the shards are read back from the device and hashed again; 0: never
  int most_failures = 3;    // failed saves in a row before save() and wait() throw Error(io)
  // Seconds that a rank may keep the others waiting in the exchanges of a save, the time its own shard takes included. Later: that save is dead,
  // `on_hung` is called from the writing thread, and save() and wait() throw Error(hung), which names the rank.
  double exchange_limit = 1800;
  std::function<void(const Error&)> on_hung;
  std::string environment;  // stored with each save: build, device and library versions, whatever bit-identical resume depends on (UTF-8)
  FileSystem* fs = &real_file_system();
  std::function<void(const std::string&)> log;  // what was skipped, moved, failed; called from both threads, one line at a time
  // How bytes leave and enter the state when its views are not in host memory: `bytes` dense ones. Absent: memcpy.
  std::function<void(std::byte* to, const View& from, size_t bytes)> copy_out;
  std::function<void(const View& to, const std::byte* from, size_t bytes)> copy_in;
  QueuedCopies queued_copies;  // of saves; where it is absent, copy_out
};

struct SaveStats {
  uint64_t committed = 0, failed = 0;  // saves
  uint64_t failed_in_a_row = 0;
  uint64_t blocked = 0;             // save() calls that waited for the one before
  uint64_t scrub_failures = 0;      // checkpoints found damaged when read back
  uint64_t retention_failures = 0;  // old checkpoints that could not be deleted
  uint64_t last_step = 0;           // of the newest commit
  uint64_t bytes = 0;               // this rank's shard
  double blocked_seconds = 0;       // summed
  double copy_seconds = 0;          // of the last save: what training waited for the copy
  double write_seconds = 0;         // of the last commit: from the copy to the commit; the estimate for "is there time to save"
};

struct TensorIdentity;  // loading.h

class Checkpoints {
 public:
  enum class Resume {
    automatic,  // the newest checkpoint if there is one
    must,       // Error(bad_data) without one
    never       // Error(usage) with one
  };

  // Takes LOCK and the next incarnation. Error(in_use) when another job has the directory, Error(io), Error(bad_data).
  Checkpoints(std::filesystem::path run, Control& comm, CheckpointOptions options = {});
  ~Checkpoints();  // finishes a save under way; a start that saved nothing gives its incarnation back
  Checkpoints(const Checkpoints&) = delete;
  Checkpoints& operator=(const Checkpoints&) = delete;

  uint64_t incarnation() const;

  struct Loaded {
    uint64_t step = 0;
    std::string scalars, config, environment;
  };
  // The newest checkpoint of the current branch at or below step `at_most`, every byte of it verified; nullopt: start from scratch.
  // What it passes over is logged with the reason, and moved to quarantine when damaged. Error(bad_data) when checkpoints exist and none verifies:
  // a run never starts from scratch beside them.
  std::optional<Loaded> find_newest(Resume resume = Resume::automatic, uint64_t at_most = UINT64_MAX);

  // What load() would find wrong with tensors of these names and shapes, before anything is allocated for them: those under `prefix`.
  // Error(bad_data).
  void check(std::span<const TensorIdentity> wanted, std::string_view prefix) const;

  // Fills `into` (and its scalars) from what find_newest() found: any slicing, whatever the saved one. Missing, unexpected and mis-shaped names are
  // listed all at once, Error(bad_data). Then writes down that this incarnation begins there.
  void load(StateDict& into);

  // Goes back within the job: waits, takes a new incarnation, so that what was saved after the checkpoint loaded next is dead.
  // Follow with find_newest(Resume::must, step) and load().
  void roll_back();

  // What CheckpointOptions::environment says, once it is known; before prepare().
  void set_environment(std::string text);

  // Plans the slices and allocates the snapshot and everything else saves of this layout need. Again when the layout changes.
  void prepare(const StateDict& like);

  // Copies the state, calls `copied` (from here on it may change), and writes in the background. Waits for the save before, if that is still under
  // way. A failed save is logged, counted and leaves no trace; earlier checkpoints stay. Throws Error(io) after options.most_failures of them in a
  // row, Error(in_use) when a later job has taken over the directory, Error for a step of 2^62 or more. Saving a step again that has been committed
  // does nothing.
  void save(uint64_t step, const StateDict& state, const std::string& config, const std::function<void()>& copied = {});

  // Until no save is under way. Throws as save() does.
  void wait();

  // The committed checkpoint of `step` stays for ever (until unpinned); not remembered over restarts.
  void pin(uint64_t step);
  void unpin(uint64_t step);

  std::optional<std::string> last_error() const;  // of the last save, if it failed
  SaveStats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// A checkpoint for reading alone (generate, eval, export): no lock, no incarnation, nothing moved. `path` is a run directory (its newest verified
// checkpoint of the current branch) or a checkpoint directory. Only tensors whose name begins with `prefix` are compared with `into`; those are
// strict.
Checkpoints::Loaded read_checkpoint(const std::string& path, StateDict& into, std::string_view prefix = {}, FileSystem& fs = real_file_system());

// What read_checkpoint would read, without tensors.
Checkpoints::Loaded describe_checkpoint(const std::string& path, FileSystem& fs = real_file_system());

// One SHA-256 over all logical tensors and the scalars, in name order; equal states give equal digests whatever their slicing, and the digest of a
// state is that of every checkpoint of it. Each StateDict tensor must be whole on this rank.
std::string digest(const StateDict& state);
std::string digest(const std::string& path, FileSystem& fs = real_file_system());  // as read_checkpoint takes it

}  // namespace heddle
