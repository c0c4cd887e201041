// The names and moves inside a run directory:
//   LOCK, inc/<n>, inc/<n>.base, ckpt/s<step>-i<n>/{shard-<r>-of-<w>.safetensors, MANIFEST}, quarantine/, LATEST
// Nothing here decides; checkpoints.cpp does. Messages go to the caller as Errors.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "checkpoint/manifest.h"
#include "core/io/file_system.h"
#include "core/io/sha256.h"

namespace heddle {

inline constexpr const char* kManifest = "MANIFEST";
inline constexpr const char* kManifestTemporary = "MANIFEST.tmp";
inline constexpr const char* kManifestRetired = "MANIFEST.retired";

// Ordered as they follow each other in training: by step, then by the job that wrote it. Never by time.
struct CheckpointId {
  uint64_t step = 0, incarnation = 0;
  auto operator<=>(const CheckpointId&) const = default;
};

// Where an incarnation began. Step 0 of incarnation 0: from scratch.
struct Base {
  CheckpointId from;
  Sha256Digest manifest{};
};

using Name = char[96];                                        // any file name heddle makes, built without allocating
void checkpoint_name(const CheckpointId& id, Name& out);      // s10-i1
void shard_name(uint64_t shard, uint64_t shards, Name& out);  // shard-0-of-1.safetensors
void incarnation_name(uint64_t incarnation, Name& out);       // 1
std::string text_of(const CheckpointId& id);
std::optional<CheckpointId> parse_checkpoint_name(std::string_view name);
std::optional<uint64_t> parse_number(std::string_view digits);  // decimal, no leading zero

class RunDirectory {
 public:
  // Opens (create: makes) the directory and its parts.
  RunDirectory(FileSystem& fs, std::string path, bool create);

  FileSystem& fs() const { return *fs_; }
  const std::string& path() const { return path_; }
  int root() const { return root_.get(); }
  int checkpoints() const { return ckpt_.get(); }
  int incarnations() const { return inc_.get(); }
  std::string path_of(const CheckpointId& id, std::string_view file = {}) const;

  // LOCK, where the file system has locks. Error(in_use) when another job holds it. One that is hard-linked to another run's is replaced first.
  void take_lock();
  // Deletes what a killed job left between writing a small file and renaming it. Does nothing where no lock says that nobody is writing.
  void sweep();
  // The next incarnation, by exclusive create and fsync: unique even where locks do not work. Error(bad_data) when inc/ holds the last number.
  uint64_t claim_incarnation();
  // Of a start that comes to nothing: no trace of it stays. Does nothing where no lock says that no later job can have started.
  void give_back_incarnation(uint64_t incarnation);
  // True when a later job has started on this directory. No allocation.
  bool superseded(uint64_t incarnation) const;

  void write_base(uint64_t incarnation, const Base& base);
  std::vector<std::pair<uint64_t, Base>> read_bases() const;

  struct Listing {
    std::vector<CheckpointId> committed, unfinished;  // with and without MANIFEST, ascending
    std::vector<std::string> foreign;                 // names that are not heddle's
  };
  Listing list() const;

  // The <w> of a checkpoint's shard names, 1 when it has none.
  uint64_t count_shards(const CheckpointId& id) const;

  // Moves a checkpoint directory to quarantine/, where it gets a name of its own; returns that name.
  std::string quarantine(const CheckpointId& id);

  struct Leftover {
    std::string directory;
    std::vector<std::string> files;
  };
  // What lies in quarantine without a MANIFEST, and may be deleted once a newer checkpoint stands.
  std::vector<Leftover> leftovers() const;
  void remove(const Leftover& leftover);  // best effort

  // Deletes a committed checkpoint of `shards` files: MANIFEST is renamed away first, so half of it is no checkpoint. No allocation.
  // 0 or -errno of the first failure.
  int remove(const CheckpointId& id, uint64_t shards);

 private:
  FileSystem* fs_;
  std::string path_;
  Handle root_, inc_, ckpt_, quarantine_, lock_;
  bool locked_ = false;
};

}  // namespace heddle
