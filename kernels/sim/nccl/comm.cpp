// Communicators: who takes part, and how they find each other.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <random>
#include <thread>
#include <type_traits>

#include "kernels/sim/cudart/runtime.h"
#include "kernels/sim/nccl/nccl_internal.h"

namespace heddle::sim::nccl {
namespace {

// The id that one rank makes and all get: where its maker is, and a number that tells it from others.
struct Id {
  char magic[16];
  uint64_t nonce;
  int32_t maker;  // rank in MPI_COMM_WORLD
};
constexpr char kMagic[16] = "heddle nccl sim";
constexpr int kHelloTag = 16384;  // and up, by nonce; every MPI allows tags to 32767
constexpr int kTableTag = 24576;
constexpr int kTags = 8192;

struct Hello {
  uint64_t nonce;
  int32_t rank, ranks, world;
};

std::atomic<int> communicators{0};
thread_local std::string last_text;

void require_mpi(int ranks) {
  int running = 0, finalized = 0;
  MPI_Initialized(&running);
  MPI_Finalized(&finalized);
  if (finalized) refuse(ncclInvalidUsage, "MPI_Finalize has been called");
  if (!running) {
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
    std::atexit([] {
      int done = 0;
      MPI_Finalized(&done);
      if (!done) MPI_Finalize();
    });
  }
  int world = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &world);
  if (ranks > world)
    refuse(ncclInvalidUsage, "a communicator of ", ranks, " ranks, but mpirun started ", world,
           " processes: the simulated NCCL has one rank per process");
}

int world_rank() {
  int running = 0, rank = 0;
  MPI_Initialized(&running);
  if (running) MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

template <class T>
Bytes bytes_from(const T& value) {
  Bytes bytes(sizeof(T));
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}
template <class T>
T from_bytes(const Bytes& bytes) {
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

// World ranks by rank, once everybody has said hello to the maker of the id.
std::vector<int> gather_world_ranks(const Id& id, int ranks, int rank) {
  const int tag = static_cast<int>(id.nonce % kTags), me = world_rank();
  const Hello mine = {id.nonce, rank, ranks, me};
  const std::string what = concat("ncclCommInitRank on rank ", rank, " of ", ranks);
  if (me != id.maker) {
    Messages messages(MPI_COMM_WORLD);
    messages.send(id.maker, kHelloTag + tag, bytes_from(mine));
    const Bytes& table = messages.receive(id.maker, kTableTag + tag, static_cast<size_t>(ranks) * sizeof(int));
    wait_for(messages, concat(what, ": waiting for world rank ", id.maker, ", which made the id and must take part"));
    std::vector<int> world(static_cast<size_t>(ranks));
    std::memcpy(world.data(), table.data(), table.size());
    return world;
  }
  std::vector<int> world(static_cast<size_t>(ranks), -1);
  world[static_cast<size_t>(rank)] = me;
  Deadline deadline;
  for (int have = 1; have < ranks;) {
    MPI_Status status;
    int there = 0;
    MPI_Iprobe(MPI_ANY_SOURCE, kHelloTag + tag, MPI_COMM_WORLD, &there, &status);
    if (!there) {
      if (is_given_up()) refuse(ncclRemoteError, what, ": aborted");
      if (deadline.passed()) {
        std::string absent;
        for (int r = 0; r < ranks; ++r) {
          if (world[static_cast<size_t>(r)] < 0) absent += concat(absent.empty() ? "" : ", ", r);
        }
        refuse(ncclRemoteError, what, ": rank ", absent, " did not come within ", Deadline::seconds(), " s (HEDDLE_SIM_NCCL_TIMEOUT)");
      }
      std::this_thread::sleep_for(std::chrono::microseconds(100));
      continue;
    }
    Hello hello;
    MPI_Recv(&hello, sizeof hello, MPI_BYTE, status.MPI_SOURCE, kHelloTag + tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    if (hello.nonce != id.nonce || hello.ranks != ranks || hello.rank < 0 || hello.rank >= ranks)
      refuse(ncclInvalidUsage, what, ": world rank ", hello.world, " comes as rank ", hello.rank, " of ", hello.ranks);
    int& place = world[static_cast<size_t>(hello.rank)];
    if (place >= 0) refuse(ncclInvalidUsage, what, ": world ranks ", place, " and ", hello.world, " both come as rank ", hello.rank);
    place = hello.world;
    ++have;
  }
  Messages messages(MPI_COMM_WORLD);
  Bytes table(world.size() * sizeof(int));
  std::memcpy(table.data(), world.data(), table.size());
  for (int r = 0; r < ranks; ++r) {
    if (r != rank) messages.send(world[static_cast<size_t>(r)], kTableTag + tag, table);
  }
  wait_for(messages, what);
  return world;
}

// A private MPI communicator of these ranks of `of`; only they call this, and they are all here.
MPI_Comm private_communicator(MPI_Comm of, const std::vector<int>& ranks, int tag) {
  MPI_Group all, part;
  MPI_Comm comm = MPI_COMM_NULL;
  MPI_Comm_group(of, &all);
  MPI_Group_incl(all, static_cast<int>(ranks.size()), ranks.data(), &part);
  const int code = MPI_Comm_create_group(of, part, tag, &comm);
  MPI_Group_free(&all);
  MPI_Group_free(&part);
  if (code != MPI_SUCCESS) refuse(ncclSystemError, "MPI_Comm_create_group failed");
  MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
  return comm;
}

ncclComm_t new_communicator(int rank, int size, MPI_Comm mpi, bool blocking) {
  auto state = std::make_shared<CommState>();
  state->rank = rank;
  state->size = size;
  state->device = cudart::thread_state().device;
  state->mpi = mpi;
  state->blocking = blocking;
  state->name = concat("communicator ", ++communicators, " (", size, " ranks)");
  if (size > 1) start_background();
  return new ncclComm{state};
}

// Whether a communicator of this configuration blocks.
bool blocks(const ncclConfig_t* config, bool otherwise, const char* api) {
  if (!config) return otherwise;
  if (config->magic != 0xcafebeef) refuse(ncclInvalidArgument, api, ": the config was not set to NCCL_CONFIG_INITIALIZER");
  const int blocking = config->blocking;
  if (blocking != NCCL_CONFIG_UNDEF_INT && blocking != 0 && blocking != 1)
    refuse(ncclInvalidArgument, api, ": blocking is ", blocking, ", not 0 or 1");
  const auto count = [&](int value, const char* name) {
    if (value != NCCL_CONFIG_UNDEF_INT && value <= 0) refuse(ncclInvalidArgument, api, ": ", name, " is ", value);
  };
  count(config->minCTAs, "minCTAs");
  count(config->maxCTAs, "maxCTAs");
  return blocking == NCCL_CONFIG_UNDEF_INT ? otherwise : blocking == 1;
}

ncclResult_t init(ncclComm_t* out, int ranks, const ncclUniqueId& unique, int rank, const ncclConfig_t* config, const char* api) {
  if (!out) refuse(ncclInvalidArgument, api, " into a null pointer");
  *out = nullptr;
  const bool blocking = blocks(config, true, api);
  if (ranks < 1 || rank < 0 || rank >= ranks) refuse(ncclInvalidArgument, api, ": rank ", rank, " of ", ranks);
  Id id;
  std::memcpy(&id, &unique, sizeof id);
  if (std::memcmp(id.magic, kMagic, sizeof kMagic) != 0) refuse(ncclInvalidArgument, api, ": the id was not made by ncclGetUniqueId");
  int device_count = 0;
  if (cudaGetDeviceCount(&device_count) != cudaSuccess) refuse(ncclUnhandledCudaError, cudaGetErrorString(cudaPeekAtLastError()));
  Deadline::seconds();  // of this environment: refused here and not on another thread
  if (ranks > 1) require_mpi(ranks);
  const auto meet = [id, ranks, rank] {
    if (ranks == 1) return MPI_COMM_NULL;
    const std::vector<int> world = gather_world_ranks(id, ranks, rank);
    return private_communicator(MPI_COMM_WORLD, world, kHelloTag + static_cast<int>(id.nonce % kTags));
  };
  if (blocking) {
    *out = new_communicator(rank, ranks, meet(), true);
    return ncclSuccess;
  }
  *out = new_communicator(rank, ranks, MPI_COMM_NULL, false);
  const auto met = std::make_shared<MPI_Comm>(MPI_COMM_NULL);
  CommState& state = *(*out)->state;
  in_background(
      state, api, [meet, met] { *met = meet(); }, [&state, met] { state.mpi = *met; });
  return ncclInProgress;
}

struct SplitRequest {
  int32_t color, key;
};
struct Part {
  int rank = 0, size = 0;  // size 0: no part of any
  MPI_Comm mpi = MPI_COMM_NULL;
};

// Finds the others of a color; `count` numbers the splits of the parent.
Part find_part(const CommState& parent, int color, int key, uint64_t count) {
  constexpr int kSplitTag = 1000;
  Messages messages(parent.mpi);
  std::vector<const Bytes*> others(static_cast<size_t>(parent.size), nullptr);
  for (int r = 0; r < parent.size; ++r) {
    if (r == parent.rank) continue;
    messages.send(r, kSplitTag, bytes_from(SplitRequest{color, key}));
    others[static_cast<size_t>(r)] = &messages.receive(r, kSplitTag, sizeof(SplitRequest));
  }
  wait_for(messages, concat("ncclCommSplit of ", parent.name, " on rank ", parent.rank));
  if (color == NCCL_SPLIT_NOCOLOR) return {};
  std::vector<std::pair<int, int>> members;  // key, rank in parent
  for (int r = 0; r < parent.size; ++r) {
    const SplitRequest request = r == parent.rank ? SplitRequest{color, key} : from_bytes<SplitRequest>(*others[static_cast<size_t>(r)]);
    if (request.color == color) members.emplace_back(request.key, r);
  }
  std::ranges::sort(members);
  std::vector<int> ranks;
  for (const auto& member : members) ranks.push_back(member.second);
  const int rank = static_cast<int>(std::ranges::find(ranks, parent.rank) - ranks.begin());
  const int tag = 2000 + static_cast<int>(count % 8192);
  return {rank, static_cast<int>(ranks.size()), ranks.size() == 1 ? MPI_COMM_NULL : private_communicator(parent.mpi, ranks, tag)};
}

// The child of a parent that does not block is there, and ready, when the parent is.
ncclResult_t split(const CommRef& parent, int color, int key, ncclComm_t* out, const ncclConfig_t* config) {
  constexpr const char* kApi = "ncclCommSplit";
  require_ready(*parent, kApi);
  *out = nullptr;
  if (color < 0 && color != NCCL_SPLIT_NOCOLOR) refuse(ncclInvalidArgument, kApi, ": color ", color);
  const bool blocking = blocks(config, parent->blocking, kApi);
  const auto part = std::make_shared<Part>();
  const auto find = [parent, color, key, count = ++parent->splits, part] { *part = find_part(*parent, color, key, count); };
  const auto finish = [part, out, blocking] {
    if (part->size > 0) *out = new_communicator(part->rank, part->size, part->mpi, blocking);
  };
  if (!parent->blocking) {
    in_background(*parent, kApi, find, finish);
    return ncclInProgress;
  }
  find();
  finish();
  return ncclSuccess;
}

CommState& state_of(ncclComm_t comm, const char* api) {
  if (!comm || !comm->state) refuse(ncclInvalidArgument, api, ": the communicator is null");
  return *comm->state;
}
CommState& ready_state_of(ncclComm_t comm, const char* api) {
  CommState& state = state_of(comm, api);
  require_ready(state, api);
  return state;
}

// Everything that was called has happened.
bool is_quiet(const CommState& state) {
  cudart::Runtime& rt = cudart::runtime();
  std::unique_lock lock(rt.mutex);
  if (state.issued != state.executed) rt.advance(lock);
  return state.issued == state.executed;
}

ncclResult_t finalize(CommState& state) {
  require_ready(state, "ncclCommFinalize");
  if (state.finalized) refuse(ncclInvalidArgument, "ncclCommFinalize of ", state.name, ", which is finalized");
  state.finalized = true;
  if (state.blocking) return ncclSuccess;
  state.pending = std::make_shared<Pending>();
  state.pending->what = "ncclCommFinalize";
  state.pending->advance = [&state] { return state.error != ncclSuccess || is_quiet(state); };
  return ncclInProgress;
}

template <class Body>
ncclResult_t guarded(ncclComm_t comm, Body body) {
  CommState* const state = comm ? comm->state.get() : nullptr;
  try {
    if constexpr (std::is_void_v<decltype(body())>) {
      body();
      return ncclSuccess;
    } else {
      return body();
    }
  } catch (const Problem& p) {
    return remember(p, state);
  } catch (const std::exception& e) {
    return remember({ncclInternalError, e.what()}, state);
  }
}

// Work that is left does not hold the program up; peers that need it notice at their deadline.
void free_communicator(ncclComm_t comm, bool aborted) {
  CommState& state = *comm->state;
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (!aborted && !state.aborted && state.mpi != MPI_COMM_NULL && !finalized && state.issued == state.executed) MPI_Comm_free(&state.mpi);
  delete comm;
}

}  // namespace

ncclResult_t remember(const Problem& problem, CommState* comm) {
  last_text = problem.text;
  if (comm) comm->report = problem.text;
  return problem.code;
}

std::string last_problem() {
  return last_text;
}

}  // namespace heddle::sim::nccl

using namespace heddle::sim::nccl;

extern "C" {

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId* uniqueId) {
  return guarded(nullptr, [&] {
    if (!uniqueId) refuse(ncclInvalidArgument, "ncclGetUniqueId into a null pointer");
    static std::atomic<uint64_t> made{0};
    std::random_device device;
    Id id = {};
    std::memcpy(id.magic, kMagic, sizeof kMagic);
    id.nonce = (uint64_t{device()} << 32) ^ (static_cast<uint64_t>(getpid()) << 16) ^ ++made;
    id.maker = world_rank();
    std::memset(uniqueId, 0, sizeof *uniqueId);
    std::memcpy(uniqueId, &id, sizeof id);
  });
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int nranks, ncclUniqueId commId, int rank) {
  return guarded(nullptr, [&] { return init(comm, nranks, commId, rank, nullptr, "ncclCommInitRank"); });
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int nranks, ncclUniqueId commId, int rank, ncclConfig_t* config) {
  return guarded(nullptr, [&] { return init(comm, nranks, commId, rank, config, "ncclCommInitRankConfig"); });
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* newcomm, ncclConfig_t* config) {
  return guarded(comm, [&] {
    state_of(comm, "ncclCommSplit");
    return split(comm->state, color, key, newcomm, config);
  });
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  return guarded(comm, [&] { return finalize(state_of(comm, "ncclCommFinalize")); });
}

// As NCCL's, it and ncclCommAbort block whatever the communicator does.
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  return guarded(nullptr, [&] {
    ready_state_of(comm, "ncclCommDestroy");
    free_communicator(comm, false);
  });
}

// The communicator's work is given up; if it had failed, the device that it took along works again.
ncclResult_t ncclCommAbort(ncclComm_t comm) {
  return guarded(nullptr, [&] {
    CommState& state = state_of(comm, "ncclCommAbort");
    give_up(state);
    state.aborted = true;
    {
      heddle::sim::cudart::Runtime& rt = heddle::sim::cudart::runtime();
      const std::lock_guard lock(rt.mutex);
      if (state.error != ncclSuccess && rt.sticky.text.find(state.report) != std::string::npos) rt.sticky = {cudaSuccess, {}};
    }
    free_communicator(comm, true);
  });
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* asyncError) {
  return guarded(comm, [&] { *asyncError = poll(state_of(comm, "ncclCommGetAsyncError")); });
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  return guarded(comm, [&] { *count = ready_state_of(comm, "ncclCommCount").size; });
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
  return guarded(comm, [&] { *device = ready_state_of(comm, "ncclCommCuDevice").device; });
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  return guarded(comm, [&] { *rank = ready_state_of(comm, "ncclCommUserRank").rank; });
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (result) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    default: return "unknown result code";
  }
}

const char* ncclGetLastError(ncclComm_t comm) {
  thread_local std::string text;
  text = comm && comm->state && !comm->state->report.empty() ? comm->state->report : last_problem();
  return text.c_str();
}

}  // extern "C"
