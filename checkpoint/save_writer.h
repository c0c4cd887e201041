// The saving half: the snapshot, the thread that writes it, the commit, and what follows a commit (scrub, retention).
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "checkpoint/checkpoints.h"
#include "checkpoint/plan.h"
#include "checkpoint/run_directory.h"

namespace heddle {

// A committed checkpoint, as retention sees it.
struct Kept {
  CheckpointId id;
  uint64_t shards = 1;
  bool verified = false;  // hashed by this job: written by it, or read at its start
  bool dead = false;
  bool pinned = false;
};

class SaveWriter {
 public:
  SaveWriter(RunDirectory& run, Control& control, const CheckpointOptions& options);
  ~SaveWriter();

  void prepare(const StateDict& like);
  bool prepared() const { return prepared_; }
  void save(uint64_t incarnation, uint64_t step, const StateDict& state, const std::string& config, const std::function<void()>& copied);
  void wait();
  void drain();  // wait() that does not throw

  // Rank 0: what retention may act on, and what a commit makes superfluous.
  void set_catalog(std::vector<Kept> kept, std::vector<RunDirectory::Leftover> leftovers);
  void pin(uint64_t step, bool pinned);

  std::optional<std::string> last_error() const;
  SaveStats stats() const;

 private:
  struct Job {
    uint64_t incarnation = 0, step = 0;
    std::string config, scalars;
    double begun = 0;               // seconds
    std::function<void()> arrived;  // waits for the copies; absent: they are there
  };

  bool alone() const { return control_.size() == 1; }
  void check_text(const StateDict& state, const std::string& config) const;
  void take_snapshot(uint64_t incarnation, uint64_t step, const StateDict& state);
  void rethrow_locked();
  void loop();
  void run_job();

  // The steps of one save, on the writing thread; each throws. `directory` is the checkpoint's own.
  Handle open_directory(bool create);
  void fold_snapshot();
  void write_shard(const Handle& directory);
  void write_shards(Handle& directory);
  void commit(const Handle& directory);
  void abandon();
  void after_commit();
  void scrub();
  void retain();
  std::string describe_shard() const;
  void take_descriptions();
  template <class Body>
  void housekeeping(Body body);

  RunDirectory& run_;
  Control& control_;
  const CheckpointOptions& options_;

  // Made by prepare().
  bool prepared_ = false;
  Plan plan_;
  std::shared_ptr<std::byte[]> memory_;    // of the two that follow
  std::span<std::byte> image_;             // this rank's shard file, byte for byte
  size_t label_at_ = 0;                    // of the shard's label in it
  std::vector<std::byte> block_;           // for reading back
  std::span<std::byte> copies_;            // of the pieces that another rank writes, one after the other: to be compared
  std::vector<uint64_t> replica_folds_;    // of this rank's replicas, by HeldPiece::replica; 0: not held
  std::vector<SavedShard> shards_;         // of all ranks, on rank 0; its own on others
  std::vector<std::string> descriptions_;  // of all ranks' shards
  std::exception_ptr snapshot_error_;      // this rank could not copy its state: the save fails, on all ranks
  uint64_t fold_ = 0;                      // this rank's pieces; on rank 0, after the gather, all ranks'
  std::string tensor_text_, manifest_text_;
  Sha256 hash_;

  std::thread thread_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool busy_ = false, stop_ = false;
  Job job_;
  CheckpointId committed_;  // newest commit of this job
  SaveStats stats_;
  std::string error_;         // of the last save; empty: it succeeded
  std::exception_ptr fatal_;  // a later job has taken over
  std::vector<Kept> kept_;    // ascending
  std::vector<RunDirectory::Leftover> leftovers_;
};

}  // namespace heddle
