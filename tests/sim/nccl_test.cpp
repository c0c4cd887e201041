// NCCL over MPI: what collectives and communicators do.
#include <cuda_bf16.h>

#include <cstring>
#include <functional>

#include "tests/sim/nccl_support.h"

namespace heddle::test {
namespace {

// Element i as rank r holds it: small integers, exact in every type and order.
int at(int rank, size_t i) {
  return (rank + 1) * (1 + static_cast<int>(i % 3));
}

template <class T>
struct Type;
template <>
struct Type<float> {
  static constexpr ncclDataType_t nccl = ncclFloat32;
};
template <>
struct Type<double> {
  static constexpr ncclDataType_t nccl = ncclFloat64;
};
template <>
struct Type<int> {
  static constexpr ncclDataType_t nccl = ncclInt32;
};
template <>
struct Type<long long> {
  static constexpr ncclDataType_t nccl = ncclInt64;
};
template <>
struct Type<__nv_bfloat16> {
  static constexpr ncclDataType_t nccl = ncclBfloat16;
};

template <class T>
T* filled(int rank, size_t n) {
  T* data = device_array<T>(n);
  std::vector<T> host;
  for (size_t i = 0; i < n; ++i) host.push_back(static_cast<T>(static_cast<float>(at(rank, i))));
  if (n > 0) to_device(data, host);
  return data;
}

template <class T>
void check_values(const T* device, size_t n, const std::function<double(size_t)>& expected) {
  const std::vector<T> values = n == 0 ? std::vector<T>() : on_host(device, n);
  for (size_t i = 0; i < n; ++i) {
    if (static_cast<double>(static_cast<float>(values[i])) == expected(i)) continue;
    INFO("element " << i << " of " << n);
    REQUIRE(static_cast<double>(static_cast<float>(values[i])) == expected(i));
  }
}

template <class T>
void every_collective() {
  const World world;
  const int size = world.size, rank = world.rank;
  const auto type = Type<T>::nccl;
  const auto ranks = static_cast<size_t>(size);
  const auto sum = [&](size_t i) {
    double s = 0;
    for (int r = 0; r < size; ++r) s += at(r, i);
    return s;
  };
  for (const size_t n : {size_t{1}, size_t{5}, size_t{1000}}) {
    T *x = filled<T>(rank, n), *y = device_array<T>(n * ranks), *wide = filled<T>(rank, n * ranks);
    const auto run = [&](auto call) {
      ok(call());
      ok(cudaStreamSynchronize(world.stream));
    };
    run([&] { return ncclAllReduce(x, y, n, type, ncclSum, world.comm, world.stream); });
    check_values(y, n, sum);
    run([&] { return ncclAllReduce(x, y, n, type, ncclMax, world.comm, world.stream); });
    check_values(y, n, [&](size_t i) { return at(size - 1, i); });
    run([&] { return ncclAllReduce(x, y, n, type, ncclMin, world.comm, world.stream); });
    check_values(y, n, [&](size_t i) { return at(0, i); });
    run([&] { return ncclAllReduce(x, y, n, type, ncclProd, world.comm, world.stream); });
    check_values(y, n, [&](size_t i) {
      double product = 1;
      for (int r = 0; r < size; ++r) product *= at(r, i);
      return product;
    });
    run([&] { return ncclReduceScatter(wide, y, n, type, ncclSum, world.comm, world.stream); });
    check_values(y, n, [&](size_t i) { return sum(static_cast<size_t>(rank) * n + i); });
    run([&] { return ncclAllGather(x, y, n, type, world.comm, world.stream); });
    check_values(y, n * ranks, [&](size_t i) { return at(static_cast<int>(i / n), i % n); });
    ok(cudaMemset(y, 0, n * sizeof(T)));
    ok(cudaDeviceSynchronize());  // the stream does not wait for the default stream
    run([&] { return ncclBroadcast(x, y, n, type, size - 1, world.comm, world.stream); });
    check_values(y, n, [&](size_t i) { return at(size - 1, i); });
    ok(cudaMemset(y, 0, n * sizeof(T)));
    ok(cudaDeviceSynchronize());  // the stream does not wait for the default stream
    run([&] { return ncclReduce(x, y, n, type, ncclSum, size - 1, world.comm, world.stream); });
    check_values(y, n, [&](size_t i) { return rank == size - 1 ? sum(i) : 0.0; });
    run([&] { return ncclAllReduce(x, x, n, type, ncclSum, world.comm, world.stream); });  // in place
    check_values(x, n, sum);
    if (std::is_integral_v<T> || size == 2 || size == 4) {  // exact halves and quarters
      T* even = filled<T>(rank, n);
      run([&] { return ncclAllReduce(even, even, n, type, ncclSum, world.comm, world.stream); });
      run([&] { return ncclAllReduce(even, y, n, type, ncclAvg, world.comm, world.stream); });
      check_values(y, n, sum);
    }
  }
  ok(ncclAllReduce(nullptr, nullptr, 0, type, ncclSum, world.comm, world.stream));
  ok(cudaStreamSynchronize(world.stream));
}

TEST_CASE("every collective in every type") {
  every_collective<float>();
  every_collective<double>();
  every_collective<int>();
  every_collective<long long>();
  every_collective<__nv_bfloat16>();

  const World world;
  const long long big = 1LL << 40;  // more than 32 bits, and a sum that carries into them
  long long* x = device_array<long long>(1);
  to_device(x, std::vector<long long>{big + 0xFFFFFFFFLL + world.rank});
  ok(ncclAllReduce(x, x, 1, ncclInt64, ncclSum, world.comm, world.stream));
  ok(cudaStreamSynchronize(world.stream));
  CHECK(on_host(x, 1)[0] == world.size * (big + 0xFFFFFFFFLL) + world.size * (world.size - 1) / 2);
}

TEST_CASE("a collective waits for the work before it in its stream") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const World world(seed);
    float *x = device_array(100), *host = pinned_array(100);
    const cudaStream_t other = new_stream();
    const cudaEvent_t ready = new_event();
    ok(cudaMemsetAsync(x, 0, 400, other));
    ok(cudaEventRecord(ready, other));
    ok(cudaStreamWaitEvent(world.stream, ready));
    ok(ncclAllReduce(x, x, 100, ncclFloat32, ncclSum, world.comm, world.stream));
    ok(cudaMemcpyAsync(host, x, 400, cudaMemcpyDeviceToHost, world.stream));
    ok(cudaStreamSynchronize(world.stream));
    CHECK(host[99] == 0.0f);
  }
}

TEST_CASE("sums depend on no order that a program may know") {
  const World world;
  const size_t n = 4096;
  float *x = device_array(n), *y = device_array(n);
  // 1e8 - 1e8 + 1 is 0, 1 or 8 off, by association.
  const float mine = world.rank == 0 ? 1e8f : world.rank == 1 ? -1e8f : 1.0f;
  to_device(x, std::vector<float>(n, mine));
  ok(ncclAllReduce(x, y, n, ncclFloat32, ncclSum, world.comm, world.stream));
  ok(cudaStreamSynchronize(world.stream));
  const std::vector<float> sums = on_host(y, n);
  size_t ones = 0;
  for (float s : sums) ones += s == 1.0f;
  if (world.size == 3) CHECK((ones > n / 10 && ones < n - n / 10));
  // All ranks hold the same bits.
  std::vector<float> first = sums;
  MPI_Bcast(first.data(), static_cast<int>(n), MPI_FLOAT, 0, MPI_COMM_WORLD);
  CHECK(first == sums);
}

TEST_CASE("grouped sends and receives: a ring, and to oneself") {
  const World world;
  const size_t n = 1000;
  float *x = filled<float>(world.rank, n), *y = device_array(n), *z = device_array(n);
  const int next = (world.rank + 1) % world.size, before = (world.rank + world.size - 1) % world.size;
  ok(ncclGroupStart());
  ok(ncclSend(x, n, ncclFloat32, next, world.comm, world.stream));
  ok(ncclRecv(y, n, ncclFloat32, before, world.comm, world.stream));
  ok(ncclSend(x, n, ncclFloat32, world.rank, world.comm, world.stream));
  ok(ncclRecv(z, n, ncclFloat32, world.rank, world.comm, world.stream));
  ok(ncclGroupEnd());
  ok(cudaStreamSynchronize(world.stream));
  check_values(y, n, [&](size_t i) { return at(before, i); });
  check_values(z, n, [&](size_t i) { return at(world.rank, i); });
  CHECK(ncclGroupEnd() == ncclInvalidUsage);
}

TEST_CASE("communicators used in different orders do not block each other") {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    const World world(seed);
    ncclComm_t second = nullptr;
    ok(ncclCommSplit(world.comm, 0, world.rank, &second, nullptr));
    float *x = filled<float>(world.rank, 100), *y = filled<float>(world.rank, 100);
    const cudaStream_t other = new_stream();
    for (int i = 0; i < 2; ++i) {  // on two streams, first one way round, then in one group on one stream
      if (i == 1) ok(ncclGroupStart());
      for (int k = 0; k < 2; ++k) {
        if ((k == 0) == (world.rank % 2 == 0))
          ok(ncclAllReduce(x, x, 100, ncclFloat32, ncclMax, world.comm, world.stream));
        else
          ok(ncclAllReduce(y, y, 100, ncclFloat32, ncclMin, second, i == 0 ? other : world.stream));
      }
      if (i == 1) ok(ncclGroupEnd());
    }
    // Each rank waits for the stream whose turn came last on the other.
    ok(cudaStreamSynchronize(world.rank % 2 == 0 ? world.stream : other));
    ok(cudaDeviceSynchronize());
    check_values(x, 100, [&](size_t i) { return at(world.size - 1, i); });
    check_values(y, 100, [&](size_t i) { return at(0, i); });
    ok(ncclCommDestroy(second));
  }
}

TEST_CASE("a host that waits elsewhere does not hold its peers up") {
  const World world;
  float* x = filled<float>(world.rank, 10);
  ok(ncclAllReduce(x, x, 10, ncclFloat32, ncclMax, world.comm, world.stream));
  if (world.rank == 0) ok(cudaStreamSynchronize(world.stream));
  MPI_Barrier(MPI_COMM_WORLD);              // without progress elsewhere, rank 0 would never come here
  ok(cudaStreamSynchronize(world.stream));  // the stream is a non-blocking one: no copy waits for it
  check_values(x, 10, [&](size_t i) { return at(world.size - 1, i); });
}

TEST_CASE("split communicators number their ranks by key") {
  const World world;
  ncclComm_t part = nullptr, none = world.comm;
  ok(ncclCommSplit(world.comm, world.rank % 2, -world.rank, &part, nullptr));
  int size = 0, rank = 0;
  ok(ncclCommCount(part, &size));
  ok(ncclCommUserRank(part, &rank));
  CHECK(size == (world.size + 1 - world.rank % 2) / 2);
  CHECK(rank == (world.size - 1 - world.rank) / 2);
  float* x = filled<float>(world.rank, 10);
  ok(ncclAllReduce(x, x, 10, ncclFloat32, ncclMin, part, world.stream));
  ok(cudaStreamSynchronize(world.stream));
  check_values(x, 10, [&](size_t i) { return at(world.rank % 2, i); });
  ok(ncclCommDestroy(part));
  ok(ncclCommSplit(world.comm, NCCL_SPLIT_NOCOLOR, 0, &none, nullptr));
  CHECK(none == nullptr);
}

TEST_CASE("captured collectives run at every launch of their graph") {
  const World world;
  float* x = filled<float>(world.rank, 10);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t exec = nullptr;
  ok(cudaStreamBeginCapture(world.stream, cudaStreamCaptureModeThreadLocal));
  ok(ncclAllReduce(x, x, 10, ncclFloat32, ncclMax, world.comm, world.stream));
  ok(ncclAllReduce(x, x, 10, ncclFloat32, ncclSum, world.comm, world.stream));
  ok(cudaStreamEndCapture(world.stream, &graph));
  ok(cudaGraphInstantiate(&exec, graph));
  for (int i = 0; i < 2; ++i) ok(cudaGraphLaunch(exec, world.stream));
  ok(cudaStreamSynchronize(world.stream));
  check_values(x, 10, [&](size_t i) { return double(at(world.size - 1, i)) * world.size * world.size; });
}

}  // namespace
}  // namespace heddle::test
