// What the tests of NCCL over MPI share. They are run by mpirun, and every rank runs every case.
#pragma once

#define OMPI_SKIP_MPICXX 1  // the C interface alone
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <nccl.h>

#include <cstdlib>

#include "tests/sim/cudart_support.h"

namespace heddle::test {
inline int world_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}
inline int world_size() {
  int size = 1;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

inline void ok(ncclResult_t status) {
  INFO(ncclGetLastError(nullptr));
  REQUIRE(status == ncclSuccess);
}

// MPI for the whole program, as heddle's own bootstrap starts it.
struct Mpi {
  Mpi() {
    int provided = 0, running = 0;
    MPI_Initialized(&running);
    if (running) return;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided);
    std::atexit([] { MPI_Finalize(); });
  }
};

inline ncclUniqueId shared_id() {
  ncclUniqueId id = {};
  if (world_rank() == 0) ok(ncclGetUniqueId(&id));
  MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
  return id;
}

// A runtime, a communicator of all ranks and a stream, for one test.
struct World : Mpi, FreshRuntime {
  explicit World(uint64_t seed = 1, const char* timeout = "20") : FreshRuntime(seed) {
    setenv("HEDDLE_SIM_NCCL_TIMEOUT", timeout, 1);
    ok(ncclCommInitRank(&comm, world_size(), shared_id(), world_rank()));
    ok(ncclCommCount(comm, &size));
    ok(ncclCommUserRank(comm, &rank));
    stream = new_stream();
  }
  ~World() {
    if (comm) ncclCommDestroy(comm);
    MPI_Barrier(MPI_COMM_WORLD);
  }
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  int rank = -1, size = 0;
};

}  // namespace heddle::test
