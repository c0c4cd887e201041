// NCCL over MPI: communicators that do not block.
#include <chrono>
#include <functional>
#include <thread>

#include "tests/sim/nccl_support.h"

namespace heddle::test {
namespace {

ncclConfig_t non_blocking() {
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  return config;
}

// Asks until it is no longer in progress.
ncclResult_t settled(ncclComm_t comm) {
  ncclResult_t state = ncclInProgress;
  while (state == ncclInProgress) {
    ok(ncclCommGetAsyncError(comm, &state));
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return state;
}
void start(ncclResult_t status, ncclComm_t& comm) {  // by reference: the call whose status it is may make it
  CHECK(status == ncclInProgress);
  REQUIRE(settled(comm) == ncclSuccess);
}

struct NonBlockingWorld : Mpi, FreshRuntime {
  explicit NonBlockingWorld(const char* timeout = "20") {
    setenv("HEDDLE_SIM_NCCL_TIMEOUT", timeout, 1);
    ncclConfig_t config = non_blocking();
    start(ncclCommInitRankConfig(&comm, world_size(), shared_id(), world_rank(), &config), comm);
    ok(ncclCommUserRank(comm, &rank));
    size = world_size();
    stream = new_stream();
  }
  ~NonBlockingWorld() {
    if (comm) ncclCommAbort(comm);
    MPI_Barrier(MPI_COMM_WORLD);
  }
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  int rank = -1, size = 0;
};

void refused(ncclResult_t status, const char* api, const char* during) {
  CHECK(status == ncclInvalidArgument);
  const std::string report = ncclGetLastError(nullptr);
  INFO(report);
  CHECK(report.find(api) != std::string::npos);
  CHECK(report.find(std::string("is used while its ") + during) != std::string::npos);
}
// Everything but asking and aborting, which would end it.
void every_call_is_refused(ncclComm_t comm, float* x, cudaStream_t stream, const char* during) {
  int n = 0;
  ncclComm_t other = nullptr;
  refused(ncclCommCount(comm, &n), "ncclCommCount", during);
  refused(ncclCommCuDevice(comm, &n), "ncclCommCuDevice", during);
  refused(ncclCommUserRank(comm, &n), "ncclCommUserRank", during);
  refused(ncclCommSplit(comm, 0, 0, &other, nullptr), "ncclCommSplit", during);
  refused(ncclCommFinalize(comm), "ncclCommFinalize", during);
  refused(ncclCommDestroy(comm), "ncclCommDestroy", during);
  refused(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, comm, stream), "ncclAllReduce", during);
  refused(ncclSend(x, 1, ncclFloat32, 0, comm, stream), "ncclSend", during);
}

TEST_CASE("a communicator that does not block is in progress until all ranks have come, and of no other use meanwhile") {
  const Mpi mpi;
  const FreshRuntime fresh;
  setenv("HEDDLE_SIM_NCCL_TIMEOUT", "20", 1);
  float* x = device_array(1);
  const cudaStream_t stream = new_stream();
  const ncclUniqueId id = shared_id();
  ncclConfig_t config = non_blocking();
  ncclComm_t comm = nullptr;
  if (world_rank() != 0) MPI_Barrier(MPI_COMM_WORLD);
  CHECK(ncclCommInitRankConfig(&comm, world_size(), id, world_rank(), &config) == ncclInProgress);
  REQUIRE(comm != nullptr);
  if (world_rank() == 0) {
    ncclResult_t state = ncclSuccess;
    ok(ncclCommGetAsyncError(comm, &state));
    CHECK(state == ncclInProgress);
    every_call_is_refused(comm, x, stream, "ncclCommInitRankConfig");
    MPI_Barrier(MPI_COMM_WORLD);
  }
  CHECK(settled(comm) == ncclSuccess);
  int size = 0;
  ok(ncclCommCount(comm, &size));
  CHECK(size == world_size());
  ok(ncclCommDestroy(comm));
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_CASE("a call on a communicator that does not block is in its stream when asking says so, not before") {
  NonBlockingWorld world;
  for (int i = 0; i < 6; ++i) {
    float *x = device_array(4), *y = device_array(4);
    to_device(x, std::vector<float>(4, 1.0f));
    CHECK(ncclAllReduce(x, y, 4, ncclFloat32, ncclSum, world.comm, world.stream) == ncclInProgress);
    every_call_is_refused(world.comm, x, world.stream, "ncclAllReduce(count 4");
    if (i % 2 == 1) ok(cudaMemsetAsync(x, 0, 16, world.stream));  // too early: comes first
    REQUIRE(settled(world.comm) == ncclSuccess);
    ok(cudaStreamSynchronize(world.stream));
    CHECK(on_host(y, 4)[3] == (i % 2 == 1 ? 0.0f : static_cast<float>(world.size)));
  }
}

TEST_CASE("a group on communicators that do not block is in progress as a whole; none mixes both kinds") {
  NonBlockingWorld world;
  ncclComm_t second = nullptr, blocking = nullptr;
  start(ncclCommSplit(world.comm, 0, -world.rank, &second, nullptr), world.comm);
  REQUIRE(second != nullptr);
  int rank = -1;
  ok(ncclCommUserRank(second, &rank));
  CHECK(rank == world.size - 1 - world.rank);
  float *x = device_array(1), *y = device_array(1);
  to_device(x, std::vector<float>{1.0f + static_cast<float>(world.rank)}), to_device(y, std::vector<float>{1.0f});
  ok(ncclGroupStart());
  ok(ncclAllReduce(x, x, 1, ncclFloat32, ncclMax, world.comm, world.stream));
  ok(ncclAllReduce(y, y, 1, ncclFloat32, ncclSum, second, world.stream));
  CHECK(ncclGroupEnd() == ncclInProgress);
  refused(ncclCommUserRank(second, &rank), "ncclCommUserRank", "ncclAllReduce(count 1, float32, max) and 1 more");
  CHECK(settled(world.comm) == ncclSuccess);
  CHECK(settled(second) == ncclSuccess);
  ok(cudaStreamSynchronize(world.stream));
  CHECK(on_host(x, 1)[0] == static_cast<float>(world.size));
  CHECK(on_host(y, 1)[0] == static_cast<float>(world.size));

  ok(ncclCommInitRank(&blocking, world.size, shared_id(), world.rank));
  ok(ncclGroupStart());
  ok(ncclAllReduce(x, x, 1, ncclFloat32, ncclMax, world.comm, world.stream));
  ok(ncclAllReduce(y, y, 1, ncclFloat32, ncclSum, blocking, world.stream));
  CHECK(ncclGroupEnd() == ncclInvalidArgument);
  CHECK(std::string(ncclGetLastError(nullptr)).find("in one group") != std::string::npos);
  ok(ncclCommDestroy(blocking));
  ok(ncclCommDestroy(second));
}

TEST_CASE("finalizing is in progress until what was called has happened; then destroying has nothing to wait for") {
  NonBlockingWorld world;
  float* x = device_array(1);
  to_device(x, std::vector<float>{1.0f});
  start(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, world.comm, world.stream), world.comm);
  if (world.rank == 0) {
    CHECK(ncclCommFinalize(world.comm) == ncclInProgress);  // the others have not even called
    ncclResult_t state = ncclSuccess;
    ok(ncclCommGetAsyncError(world.comm, &state));
    CHECK(state == ncclInProgress);
    refused(ncclCommDestroy(world.comm), "ncclCommDestroy", "ncclCommFinalize");
    MPI_Barrier(MPI_COMM_WORLD);
  } else {
    MPI_Barrier(MPI_COMM_WORLD);
    CHECK(ncclCommFinalize(world.comm) == ncclInProgress);
  }
  CHECK(settled(world.comm) == ncclSuccess);
  CHECK(on_host(x, 1)[0] == static_cast<float>(world.size));
  CHECK(ncclCommFinalize(world.comm) == ncclInvalidArgument);
  ok(ncclCommDestroy(world.comm));
  world.comm = nullptr;
}

TEST_CASE("aborting ends an init that others do not come to, and nothing is left of it") {
  const Mpi mpi;
  const FreshRuntime fresh;
  setenv("HEDDLE_SIM_NCCL_TIMEOUT", "20", 1);
  const ncclUniqueId id = shared_id();
  ncclConfig_t config = non_blocking();
  for (int alone = 0; alone < 2; ++alone) {  // with and without the rank that made the id
    if (world_rank() == alone) {
      ncclComm_t comm = nullptr;
      CHECK(ncclCommInitRankConfig(&comm, world_size(), alone == 0 ? id : shared_id(), alone, &config) == ncclInProgress);
      const auto begin = std::chrono::steady_clock::now();
      ok(ncclCommAbort(comm));
      CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
    } else if (alone == 1) {
      shared_id();
    }
    MPI_Barrier(MPI_COMM_WORLD);
  }
  const World whole;
  float* x = device_array(1);
  to_device(x, std::vector<float>{1.0f});
  ok(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, whole.comm, whole.stream));
  ok(cudaStreamSynchronize(whole.stream));
  CHECK(on_host(x, 1)[0] == static_cast<float>(whole.size));
}

TEST_CASE("a rank that does not come to an init that does not block is told by asking") {
  const Mpi mpi;
  const FreshRuntime fresh;
  setenv("HEDDLE_SIM_NCCL_TIMEOUT", "0.5", 1);
  const ncclUniqueId id = shared_id();
  if (world_rank() == 0) {
    ncclConfig_t config = non_blocking();
    ncclComm_t comm = nullptr;
    CHECK(ncclCommInitRankConfig(&comm, world_size(), id, 0, &config) == ncclInProgress);
    CHECK(settled(comm) == ncclRemoteError);
    CHECK(std::string(ncclGetLastError(comm)).find("rank 1") != std::string::npos);
    ok(ncclCommAbort(comm));
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_CASE("a configuration that NCCL would refuse is refused") {
  const Mpi mpi;
  const FreshRuntime fresh;
  const ncclUniqueId id = shared_id();
  const auto why = [&](const std::function<void(ncclConfig_t&)>& spoil, const char* part) {
    ncclConfig_t config = non_blocking();
    spoil(config);
    ncclComm_t comm = nullptr;
    CHECK(ncclCommInitRankConfig(&comm, world_size(), id, world_rank(), &config) == ncclInvalidArgument);
    CHECK(std::string(ncclGetLastError(nullptr)).find(part) != std::string::npos);
  };
  why([](ncclConfig_t& c) { c.blocking = 2; }, "blocking is 2");
  why([](ncclConfig_t& c) { c.magic = 1; }, "NCCL_CONFIG_INITIALIZER");
  why([](ncclConfig_t& c) { c.maxCTAs = 0; }, "maxCTAs is 0");
  MPI_Barrier(MPI_COMM_WORLD);
}

}  // namespace
}  // namespace heddle::test
