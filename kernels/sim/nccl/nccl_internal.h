// NCCL on MPI: communicators, and the calls that become work of a stream.
//
// A call (or a group of calls) is one piece of work that asks its peers again and again without blocking, so communicators may be used in different
// orders on different ranks, and several streams may wait at once. Before data moves, the ranks exchange what each of them called; a difference, or a
// rank that does not come before the deadline (HEDDLE_SIM_NCCL_TIMEOUT seconds, 60), is an error that names the rank and both calls. On a GPU the
// same mistakes hang or corrupt memory.
#pragma once

#define OMPI_SKIP_MPICXX 1  // the C interface alone
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <nccl.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/sim/cudart/site.h"

namespace heddle::sim::nccl {

using cudart::CallSite;
using Bytes = std::vector<std::byte>;

// Thrown inside, an ncclResult_t outside.
struct Problem {
  ncclResult_t code;
  std::string text;
};
template <class... Parts>
[[noreturn]] void refuse(ncclResult_t code, const Parts&... parts) {
  throw Problem{code, concat(parts...)};
}

// The time until which something must have happened.
class Deadline {
 public:
  Deadline();
  bool passed() const { return std::chrono::steady_clock::now() > end_; }
  static double seconds();

 private:
  std::chrono::steady_clock::time_point end_;
};

// What a non-blocking communicator is still doing; its calls give ncclInProgress, and all but ncclCommGetAsyncError and ncclCommAbort are misuse
// meanwhile.
struct Pending {
  std::string what;                       // "ncclCommInitRankConfig": for whoever uses the communicator too early
  std::function<bool()> advance;          // asked at each ncclCommGetAsyncError; true: done. Throws Problem
  std::function<void()> give_up = [] {};  // ncclCommAbort: comes back when nothing of it runs any more
};

// What a communicator is to all who share it.
struct CommState {
  std::string name;  // "communicator 2 (4 ranks)"
  int rank = 0, size = 1, device = 0;
  MPI_Comm mpi = MPI_COMM_NULL;       // null with one rank
  uint64_t issued = 0, executed = 0;  // calls on one communicator run in the order in which they were made
  uint64_t splits = 0;
  uint64_t sequence = 0;  // collectives carried out
  bool aborted = false, finalized = false, blocking = true;
  std::shared_ptr<Pending> pending;  // null: ready
  ncclResult_t error = ncclSuccess;
  std::string report;
};
using CommRef = std::shared_ptr<CommState>;

enum class Kind : uint8_t { all_reduce, reduce_scatter, all_gather, broadcast, reduce, send, recv };
const char* name_of(Kind kind);
const char* name_of(ncclDataType_t type);
const char* name_of(ncclRedOp_t op);
size_t bytes_of(ncclDataType_t type);  // 0: not supported

// One call as it was made.
struct CollectiveCall {
  Kind kind;
  const void* from = nullptr;
  void* to = nullptr;
  size_t count = 0;  // elements, as the NCCL signature counts them
  ncclDataType_t type = ncclFloat32;
  ncclRedOp_t op = ncclSum;
  int peer = 0;  // root, or the other side of send and recv
  CallSite site;
  std::string text() const;  // "ncclAllReduce(count 4, float32, sum)"
};

// Work in progress on one communicator: the calls of one group, in order; sends and receives of a group go together.
class Exchange {
 public:
  virtual ~Exchange() = default;
  virtual bool advance() = 0;  // true: done. Throws Problem
};
std::unique_ptr<Exchange> start_exchange(CommRef comm, std::vector<CollectiveCall> calls);

// out[i] = op over ranks of parts[rank][i], associated in an order that depends on the seed and on i: what relies on a library's order fails.
void reduce(std::byte* out, const std::vector<const std::byte*>& parts, size_t count, ncclDataType_t type, ncclRedOp_t op, uint64_t seed);

// Non-blocking messages whose buffers live as long as MPI may touch them, also when the work is dropped.
class Messages {
 public:
  explicit Messages(MPI_Comm comm) : comm_(comm) {}
  ~Messages();
  Messages(const Messages&) = delete;
  Messages& operator=(const Messages&) = delete;
  void send(int to, int tag, Bytes data);
  Bytes& receive(int from, int tag, size_t bytes);  // filled once done() is true; the reference stays valid
  bool done();                                      // all of them
  std::vector<int> missing();                       // ranks whose message has not arrived

 private:
  struct Message {
    Bytes data;
    std::vector<MPI_Request> requests;  // pieces of at most 1 GiB: MPI counts are ints
    int peer;
    bool incoming;
  };
  MPI_Comm comm_;
  std::vector<std::unique_ptr<Message>> messages_;
};

// ---- communicators that do not block ----

// Throws ncclInvalidArgument, as NCCL returns it, while the operation before is in progress.
void require_ready(const CommState& comm, const std::string& api);
// ncclCommGetAsyncError: lets the operation in progress go on and says how far it is.
ncclResult_t poll(CommState& comm);
// Does `work` on a thread of its own; `finish` follows on the thread that asks.
void in_background(CommState& comm, std::string what, std::function<void()> work, std::function<void()> finish);
// `launch` happens some polls later: what a program puts into the same stream before that comes first, as it may on a GPU.
void launch_later(const std::vector<CommRef>& comms, const std::string& what, std::function<void()> launch);
// ncclCommAbort while something is in progress; whether that was asked for of the work that this thread does.
void give_up(CommState& comm);
bool is_given_up();

// Runs a blocking call's wait: peers may need this process's streams to go on meanwhile.
void wait_for(Messages& messages, const std::string& what);
// From now on a thread of its own moves the streams of this process when no host thread waits for them and peers do.
void start_background();

ncclResult_t remember(const Problem& problem, CommState* comm);  // for ncclGetLastError
std::string last_problem();

}  // namespace heddle::sim::nccl

struct ncclComm {
  heddle::sim::nccl::CommRef state;
};
