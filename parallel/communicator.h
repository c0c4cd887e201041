// Communicator: the device plane. Collectives on device memory, ordered on streams.
//
// Views are dense and live on the device of the communicator; reductions sum. Each call starts after the work already on `stream`, and returns a
// handle that a stream joins: the host never waits (for the CPU's stream joining is waiting, since the host is that stream). A call is collective:
// every rank of the group makes it in the same order with the same sizes. The memory belongs to the call until it has been joined. Errors name the
// collective and this rank.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "kernels/api/types.h"

namespace heddle {

// A collective under way.
class Work {
 public:
  Work() = default;  // complete
  explicit Work(std::function<void(Stream)> join) : join_(std::move(join)) {}
  // What is queued on `stream` from here on sees the result.
  void join(Stream stream) const {
    if (join_) join_(stream);
  }

 private:
  std::function<void(Stream)> join_;
};

// One message between two ranks.
struct Transfer {
  View data;
  int peer = 0;
  bool send = false;
};

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string_view name() const = 0;  // "local", "mpi", "nccl"

  virtual Work all_reduce(View data, Stream stream) = 0;  // in place; f32, bf16, f64, i32
  // in: for each rank in order `counts[rank]` elements; out: this rank's, summed. out may be its place in `in`. An empty `counts`: equal parts.
  virtual Work reduce_scatter(View in, View out, std::span<const int64_t> counts, Stream stream) = 0;
  // The other way round, any dtype; in may be its place in `out`.
  virtual Work all_gather(View in, View out, std::span<const int64_t> counts, Stream stream) = 0;
  virtual Work broadcast(View data, int root, Stream stream) = 0;  // any dtype
  // All of them at once, in any order: no rank waits for a partner's other messages. Messages between two ranks match in the order given.
  virtual Work grouped(std::span<const Transfer> transfers, Stream stream) = 0;

  // Seconds that streams have stood at joins of this communicator's work since the last call, on the device's clock: exposed communication, and
  // what slower ranks cost. Between steps; waits for the joins. 0 unless CommunicatorOptions::time_joins.
  virtual double take_waited() { return 0; }

  // Gives up what is under way on this rank; nothing works afterwards.
  virtual void abort() = 0;

  Work send(View data, int to, Stream stream) {
    const Transfer one{data, to, true};
    return grouped({&one, 1}, stream);
  }
  Work recv(View data, int from, Stream stream) {
    const Transfer one{data, from, false};
    return grouped({&one, 1}, stream);
  }
};

// One rank: all collectives are the identity.
std::unique_ptr<Communicator> local_communicator();

// What both sides of a scatter or gather rely on: `whole` is the ranks' parts in order and `part` this rank's, of one dtype. Returns every rank's
// count.
std::vector<int64_t> part_counts(std::string_view op, const View& whole, const View& part, std::span<const int64_t> counts, int rank, int size);

}  // namespace heddle
