// NCCL over MPI: what is said when ranks do not do the same, do not come, or ask for what there is not.
#include <cstring>
#include <functional>

#include "tests/sim/nccl_support.h"

namespace heddle::test {
namespace {

// Each rank makes a different call; the report must name both.
void check_mismatch(const std::function<ncclResult_t(const World&, float*)>& call, const std::vector<std::string>& parts) {
  World world;
  float* x = device_array(64);
  ok(cudaMemset(x, 0, 256));
  ok(call(world, x));
  CHECK(cudaStreamSynchronize(world.stream) == cudaErrorLaunchFailure);
  const std::string report = ncclGetLastError(world.comm);
  INFO(report);
  for (const std::string& part : parts) CHECK(report.find(part) != std::string::npos);
  CHECK(std::string(cudaGetErrorString(cudaErrorLaunchFailure)).find(report) != std::string::npos);
  ncclResult_t state = ncclSuccess;
  ok(ncclCommGetAsyncError(world.comm, &state));
  CHECK(state == ncclInvalidUsage);
  CHECK(ncclAllReduce(x, x, 1, ncclFloat32, ncclSum, world.comm, world.stream) == ncclInvalidUsage);
  // After the abort the device works again.
  ok(ncclCommAbort(world.comm));
  world.comm = nullptr;
  cudaGetLastError();
  ok(cudaDeviceSynchronize());
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_CASE("ranks that call different things are named, with both calls") {
  const bool first = [] {
    const Mpi mpi;
    return world_rank() == 0;
  }();
  const std::string other = first ? "on rank 1" : "on rank 0";
  check_mismatch([&](const World& w, float* x) { return ncclAllReduce(x, x, first ? 4 : 5, ncclFloat32, ncclSum, w.comm, w.stream); },
                 {"different counts", other, "ncclAllReduce(count 4, float32, sum)", "ncclAllReduce(count 5, float32, sum)", "collective 1 is",
                  "ncclAllReduce called by"});
  check_mismatch([&](const World& w, float* x) { return ncclAllReduce(x, x, 4, first ? ncclFloat32 : ncclInt32, ncclSum, w.comm, w.stream); },
                 {"different data types", other, "float32", "int32"});
  check_mismatch([&](const World& w, float* x) { return ncclAllReduce(x, x, 4, ncclFloat32, first ? ncclSum : ncclMax, w.comm, w.stream); },
                 {"different operations", other, "sum", "max"});
  check_mismatch([&](const World& w, float* x) { return ncclBroadcast(x, x, 4, ncclFloat32, first ? 0 : 1, w.comm, w.stream); },
                 {"different roots", other, "root 0", "root 1"});
  check_mismatch(
      [&](const World& w, float* x) {
        return first ? ncclAllReduce(x, x, 4, ncclFloat32, ncclSum, w.comm, w.stream) : ncclBroadcast(x, x, 4, ncclFloat32, 0, w.comm, w.stream);
      },
      {"different calls", other, "ncclAllReduce", "ncclBroadcast"});
  check_mismatch(
      [&](const World& w, float* x) {
        if (w.rank > 1) return ncclSend(x, 3, ncclFloat32, w.rank, w.comm, w.stream);  // no partner at all
        return first ? ncclSend(x, 3, ncclFloat32, 1, w.comm, w.stream) : ncclRecv(x, 4, ncclFloat32, 0, w.comm, w.stream);
      },
      world_rank() > 1
          ? std::vector<std::string>{"1 sends to itself and 0 receives"}
          : std::vector<std::string>{"different sizes", other, "ncclSend(count 3, float32, to rank 1)", "ncclRecv(count 4, float32, from rank 0)"});
}

TEST_CASE("the same calls in another order on one rank are named, with their place in the order") {
  const Mpi mpi;
  const bool last = world_rank() == world_size() - 1;
  const std::string other = "on rank " + std::to_string(last ? 0 : world_size() - 1);
  // The same calls everywhere, but that the last rank makes the second and the third the other way round. By then the mistake may be known.
  const auto in_order = [&](const World& w, float* x, const auto& second, const auto& third) {
    const ncclResult_t status = ncclAllReduce(x, x, 4, ncclFloat32, ncclSum, w.comm, w.stream);
    last ? third() : second();
    last ? second() : third();
    return status;
  };
  check_mismatch(
      [&](const World& w, float* x) {
        return in_order(
            w, x, [&] { ncclAllReduce(x, x, 4, ncclFloat32, ncclSum, w.comm, w.stream); },
            [&] { ncclBroadcast(x, x, 4, ncclFloat32, 0, w.comm, w.stream); });
      },
      {"different calls", other, "collective 2 is ncclAllReduce(count 4", "collective 2 is ncclBroadcast(count 4"});
  check_mismatch(
      [&](const World& w, float* x) {
        return in_order(
            w, x, [&] { ncclAllReduce(x, x, 5, ncclFloat32, ncclSum, w.comm, w.stream); },
            [&] { ncclAllReduce(x, x, 6, ncclFloat32, ncclSum, w.comm, w.stream); });
      },
      {"different counts", other, "collective 2 is ncclAllReduce(count 5", "collective 2 is ncclAllReduce(count 6"});
}

TEST_CASE("a rank that does not come is named when the deadline has passed") {
  World world(1, "1");
  if (world.rank == 0) {
    float* x = device_array(4);
    ok(cudaMemset(x, 0, 16));
    ok(ncclAllReduce(x, x, 4, ncclFloat32, ncclSum, world.comm, world.stream));
    refused(cudaStreamSynchronize(world.stream), cudaErrorLaunchFailure,
            {"rank 1", "did not come to collective 1 within 1 s", "rank 0 called ncclAllReduce(count 4, float32, sum)"});
    ncclResult_t state = ncclSuccess;
    ok(ncclCommGetAsyncError(world.comm, &state));
    CHECK(state == ncclRemoteError);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  ok(ncclCommAbort(world.comm));
  world.comm = nullptr;
}

TEST_CASE("aborting ends a collective that others do not come to, and the stream goes on behind it") {
  World world;
  float* x = device_array(4);
  if (world.rank == 0) {
    ok(ncclAllReduce(x, x, 4, ncclFloat32, ncclSum, world.comm, world.stream));
    ok(cudaMemsetAsync(x, 0, 16, world.stream));
    ok(ncclCommAbort(world.comm));
    world.comm = nullptr;
    ok(cudaStreamSynchronize(world.stream));
    CHECK(on_host(x, 4)[3] == 0.0f);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

TEST_CASE("wrong arguments are refused at the call") {
  const World world;
  float* x = device_array(16);
  std::vector<float> host(16);
  const auto why = [&](ncclResult_t status, ncclResult_t code, const char* part) {
    CHECK(status == code);
    INFO(ncclGetLastError(world.comm));
    CHECK(std::string(ncclGetLastError(world.comm)).find(part) != std::string::npos);
  };
  why(ncclAllReduce(x, x, 16, ncclFloat32, ncclSum, nullptr, world.stream), ncclInvalidArgument, "");
  why(ncclAllReduce(host.data(), x, 16, ncclFloat32, ncclSum, world.comm, world.stream), ncclInvalidArgument, "sendbuff is pageable host memory");
  why(ncclAllReduce(x, host.data(), 16, ncclFloat32, ncclSum, world.comm, world.stream), ncclInvalidArgument, "recvbuff is pageable host memory");
  why(ncclAllReduce(x, nullptr, 16, ncclFloat32, ncclSum, world.comm, world.stream), ncclInvalidArgument, "recvbuff is null");
  why(ncclAllReduce(x, x, 17, ncclFloat32, ncclSum, world.comm, world.stream), ncclInvalidArgument, "4 bytes past the end of byte 0 of 64 bytes");
  why(ncclAllReduce(x, x, 16, ncclFloat16, ncclSum, world.comm, world.stream), ncclInvalidArgument, "no float16");
  why(ncclAllReduce(x, x, 16, ncclFloat32, static_cast<ncclRedOp_t>(ncclAvg + 1), world.comm, world.stream), ncclInvalidArgument, "operation 5");
  why(ncclBroadcast(x, x, 16, ncclFloat32, world.size, world.comm, world.stream), ncclInvalidArgument, "rank ");
  why(ncclSend(x, 1, ncclFloat32, -1, world.comm, world.stream), ncclInvalidArgument, "rank -1");
  ok(cudaFree(x));
  why(ncclAllReduce(x, x, 16, ncclFloat32, ncclSum, world.comm, world.stream), ncclInvalidArgument, "used after free");
  ncclComm_t bad = nullptr;
  ncclUniqueId id = {};
  CHECK(ncclCommInitRank(&bad, 2, id, 0) == ncclInvalidArgument);
  ok(ncclGetUniqueId(&id));
  CHECK(ncclCommInitRank(&bad, world.size + 1, id, 0) == ncclInvalidUsage);
  CHECK(std::string(ncclGetLastError(nullptr)).find("one rank per process") != std::string::npos);
}

TEST_CASE("a deadline that is no number of seconds is refused") {
  const World world;
  const ncclUniqueId id = shared_id();
  for (const char* bad : {"soon", "", "0", "-3", "5s", "nan"}) {
    setenv("HEDDLE_SIM_NCCL_TIMEOUT", bad, 1);
    ncclComm_t comm = nullptr;
    CHECK(ncclCommInitRank(&comm, world.size, id, world.rank) == ncclInvalidArgument);
    CHECK(std::string(ncclGetLastError(nullptr)).find(std::string("HEDDLE_SIM_NCCL_TIMEOUT: '") + bad + "'") != std::string::npos);
  }
  setenv("HEDDLE_SIM_NCCL_TIMEOUT", "20", 1);
}

TEST_CASE("a communicator that not all ranks join is given up after the deadline") {
  const World world(1, "1");
  const ncclUniqueId id = shared_id();
  ncclComm_t incomplete = nullptr;
  if (world.rank == 0) {
    CHECK(ncclCommInitRank(&incomplete, world.size, id, 0) == ncclRemoteError);
    const std::string report = ncclGetLastError(nullptr);
    INFO(report);
    CHECK(report.find("ncclCommInitRank on rank 0") != std::string::npos);
    std::string absent = "rank 1";
    for (int r = 2; r < world.size; ++r) absent += ", " + std::to_string(r);
    CHECK(report.find(absent + " did not come within 1 s") != std::string::npos);
  }
  MPI_Barrier(MPI_COMM_WORLD);
}

}  // namespace
}  // namespace heddle::test
