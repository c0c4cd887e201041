// Batches of training samples from token shards, as a pure function of a sample's number.
//
// Samples: shards in sorted order; shard s of n tokens holds floor((n - 1) / T) samples, and its sample j is tokens [jT, jT + T], the inputs
// the first T of them and the targets the last T. A sample never crosses from one shard to the next.
// Order: position p of the run is place p mod N of epoch floor(p / N), N samples an epoch, and there stands sample
// Permutation(N, seed, epoch)(p mod N) (permutation.h), or p mod N itself in sequential order. The position is the whole cursor: the samples
// consumed over all ranks. A step of `G` samples over all ranks starting at p gives rank r the positions p + rG/ranks onward; which rank
// asks changes nothing.
// Documents: with the mask on, targets that would predict across a document boundary are -1, and document_start says where the attention of
// each token begins. The boundary lies before the end-of-text token (EotPosition::prepend) or after it (append).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "data/same_tokenizer.h"
#include "data/shard.h"

namespace heddle {

// Memory of the caller for one batch; three arrays of batch * seq, row-major.
struct BatchView {
  int64_t batch = 0, seq = 0;
  int32_t* tokens = nullptr;          // (B, T)
  int32_t* targets = nullptr;         // (B, T) the next token; -1 = ignored
  int32_t* document_start = nullptr;  // (B, T) index in the row of the first token of this token's document; 0 if it began before the row
};

enum class SampleOrder : uint8_t { shuffled, sequential };

// Whether opening compares shards with the SHA-256 in dataset.json: automatic does when they are at most 1 GiB in all.
enum class VerifyHashes : uint8_t { automatic, always, never };

// The ranks of a job read every shard once between them: of all shards rank r reads each `ranks`-th, from the r-th on, and what it found goes
// through `exchange`, which gives every rank the texts of all in rank order. Opening is collective then, and an error of one is the error of all.
struct SharedReading {
  int rank = 0, ranks = 1;
  std::function<std::vector<std::string>(const std::string& mine)> exchange;
};

struct LoaderOptions {
  std::vector<std::string> shards;  // globs of shard files; all they match, sorted together
  int64_t seq = 0;                  // T
  uint64_t seed = 0;
  // The tokenizer's facts. What is not given is taken from dataset.json beside the shards; what is given must agree with it. The shards of all
  // folders must be of one tokenizer; those that no dataset.json records are taken at their word (Loader::unidentified).
  std::optional<TokenizerIdentity> tokenizer;
  std::optional<int64_t> vocab;
  std::optional<int32_t> eot;
  std::optional<EotPosition> eot_position;  // prepend when nobody says
  bool document_mask = true;                // needs eot; off: document_start is 0 everywhere and every target counts
  SampleOrder order = SampleOrder::shuffled;
  ShardFormat format = ShardFormat::header;
  VerifyHashes verify = VerifyHashes::automatic;
  SharedReading reading;
  int64_t prefetch_batch = 0;  // the largest batch that prefetch() will be asked for; 0: no prefetch and no thread
};

// Opening reads every shard once: format, size, every token < vocab, hashes where asked. Error(bad_data) names file and offset, or says that no
// target counts; Error(usage) for options that fit no data (T too long); Error(mismatch) when an option contradicts dataset.json, or shards are of
// another tokenizer. After that nothing is allocated. fill, valid_targets and place may be called from several threads; prefetch from one, together
// with its fill. fill throws Error(bad_data) naming file and offset when a shard has been cut or overwritten since.
class Loader {
 public:
  explicit Loader(LoaderOptions options);
  ~Loader();
  Loader(const Loader&) = delete;
  Loader& operator=(const Loader&) = delete;

  int64_t seq() const;
  int64_t vocab() const;
  std::optional<int32_t> eot() const;
  uint64_t samples_per_epoch() const;
  uint64_t tokens() const;  // in all shards
  // Whose tokens these are: the tokenizer asked for, else the one that dataset.json records; nothing when nobody says.
  const std::optional<TokenizerIdentity>& tokenizer() const;
  // The first shard that no dataset.json records, so that nothing shows whose tokens it holds; "" when all are recorded.
  const std::string& unidentified() const;
  // Tokens that are in no sample: of shards shorter than T + 1, and behind the last sample of the others.
  struct LeftOut {
    uint64_t tokens = 0;  // all of them
    uint64_t short_shards = 0, short_tokens = 0;
    std::string first_short;  // "" when no shard is too short
  };
  const LeftOut& left_out() const;

  // Positions first .. first + out.batch - 1; out.seq must be T.
  void fill(uint64_t first, const BatchView& out);
  // The targets that count among positions first .. first + count - 1: what a step's loss divides by. No token is read.
  int64_t valid_targets(uint64_t first, uint64_t count) const;
  // A background thread prepares that batch (at most prefetch_batch rows); a later fill() of the same positions takes it. Waits for an
  // earlier prefetch; never changes what fill() gives.
  void prefetch(uint64_t first, int64_t batch);

  // Where a position's sample lies, for error reports and skip lists.
  struct Place {
    std::string file;
    uint64_t shard = 0;   // number in sorted order
    uint64_t offset = 0;  // first token in the shard
  };
  Place place(uint64_t position) const;

  // One line a shard, in order: base name, size in bytes, SHA-256 (that of dataset.json, where one records the shard).
  const std::string& shard_list() const;
  // SHA-256 over that list. Equal fingerprints and equal options give equal batches.
  std::string fingerprint() const;
  static std::string fingerprint_of(const std::string& shard_list);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace heddle
