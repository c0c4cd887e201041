// ZeRO-1: each data-parallel rank updates what it owns of the values and gets the rest from the others, in the order in which forward asks for them.
//
// Nobody waits for all of it: a parameter's bucket is joined where an op first acquires the parameter (core/weight.h), so the last blocks are still
// on their way while the first ones compute. Validation, samples and what else goes through ops ask in the same way.
#pragma once

#include <memory>
#include <vector>

#include "core/arena.h"
#include "parallel/bucket_parts.h"
#include "parallel/communicator.h"

namespace heddle {

class ValueGather {
 public:
  // The source of the arena's trainable parameters from here on, until it goes. Alone it has nothing to do.
  ValueGather(const Arena& arena, Communicator& comm);
  ~ValueGather();
  ValueGather(const ValueGather&) = delete;
  ValueGather& operator=(const ValueGather&) = delete;

  // After what this rank owns was written, on the stream; collective.
  void start(Stream stream);
  // The same, begun by whoever first joins a bucket: for work that is recorded and launched later.
  void owe() { owed_ = true; }
  void join_begun(Stream stream);  // what start() began, and nothing that is owed
  void forget();                   // nothing is owed or under way: a graph does it
  // The stream sees all values: for who reads the arena past its parameters.
  void join(Stream stream);

 private:
  struct Bucket;
  class Source;
  void join(Bucket& bucket, Stream stream);
  const Arena& arena_;
  Communicator& comm_;
  std::vector<BucketParts> parts_;
  std::vector<std::shared_ptr<Bucket>> buckets_;
  std::vector<size_t> order_;  // of first use
  bool owed_ = false;
};

}  // namespace heddle
