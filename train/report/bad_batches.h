// bad_batches.jsonl: the data that made a run stumble, for people to look at and for later starts to leave out.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace heddle {

struct BadBatch {
  uint64_t step = 0;                     // the run's, when it noticed; 0: put on the list by a person
  uint64_t first_sample = 0, count = 0;  // global samples [first_sample, first_sample + count)
  std::string file;                      // the shard of the first sample
  uint64_t offset = 0;                   // its first token there
  std::string reason;
  // true: the run was rolled back and this data is left out from now on. false: one withheld update, which a replay withholds again by itself
  // (leaving it out would change the steps after it).
  bool skip = false;

  bool operator==(const BadBatch&) const = default;
};

// Rank 0 writes; every rank may read. Lines are durable when add() returns.
class BadBatchLedger {
 public:
  // Reads the file if there is one. A torn last line (crash) is dropped; any other bad line is Error(bad_data) naming file and line, and so is what
  // is no regular file.
  explicit BadBatchLedger(std::filesystem::path file);

  // An entry that is there already is not written again: a run that was killed finds the same data bad once more. Error(io) when it cannot be
  // made durable.
  void add(const BadBatch& batch);

  const std::vector<BadBatch>& entries() const { return entries_; }

  // Roll-backs that the run made (not what people listed). A checkpoint knows only those before it; the list is where the budget is kept.
  uint64_t rollbacks() const;

  // The first position >= cursor from which `count` samples hold none that is to be skipped.
  uint64_t next_clean(uint64_t cursor, uint64_t count) const;

 private:
  std::filesystem::path file_;
  std::vector<BadBatch> entries_;
};

}  // namespace heddle
