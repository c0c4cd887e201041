// Collectives between the ranks of a job. Passed in, never global; one rank is not special (local: every collective is the identity).
//
// Views are dense and live on the device of `stream`; reductions sum. A call is collective: every rank of the group makes it in the same order
// with the same sizes. Errors name the collective and this rank.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "kernels/api/types.h"

namespace heddle {

class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string_view name() const = 0;  // "local", "mpi", "nccl"

  // The ranks that pass the same color, ordered by (key, rank).
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;

  virtual void all_reduce(View data, Stream stream) = 0;              // in place, sum; f32, f64, i32
  virtual void reduce_scatter(View in, View out, Stream stream) = 0;  // out = this rank's 1/size of the sum
  virtual void all_gather(View in, View out, Stream stream) = 0;      // out = concatenation in rank order
  virtual void broadcast(View data, int root, Stream stream) = 0;     // any dtype
  virtual void send(View data, int to, Stream stream) = 0;
  virtual void recv(View data, int from, Stream stream) = 0;
  virtual void barrier() = 0;

  // Starts an all_reduce that may run while the caller computes; finish() waits for all started ones, in order.
  virtual void start_all_reduce(View data, Stream stream) { all_reduce(data, stream); }
  virtual void finish() {}

  // Host-side bytes, for small control messages: every rank's string, in rank order.
  virtual std::vector<std::string> gather_text(const std::string& mine) = 0;
  // The same with a limit: when a rank has not answered after `seconds` of this rank's clock, Error(hung) names the ranks that are missing, as far as
  // this one knows. A group that has given up once is of no further use. Implementations that cannot wait with a limit wait without.
  virtual std::vector<std::string> gather_text_within(const std::string& mine, double seconds) {
    (void)seconds;
    return gather_text(mine);
  }
};

// One rank: all collectives are identities.
std::unique_ptr<Communicator> local_communicator();

// MPI_COMM_WORLD when the process was started by an MPI launcher with more than one rank, else local. Initialises MPI on first use and
// finalises it at exit. Error(usage) when launched on several ranks by a build without MPI, or when MPI finds this process alone although the
// launcher's variables speak of several: each of them would train the same run by itself.
std::unique_ptr<Communicator> world_communicator();

// What a launcher (Open MPI's, MPICH's, Intel's mpirun, Slurm's srun) says of this process, also before MPI starts and in a build without it.
struct Launch {
  bool found = false;         // a launcher started it, be it alone: what it prints is collected by the launcher
  int ranks = 1, rank = 0;    // of the job
  const char* variable = "";  // that says how many
};
Launch launch_of_this_process();

// A sentence when this process was started alone where Slurm reserved places for several; else empty.
std::string unused_places();

// Ends every rank of the job with this code: a rank that fails alone would leave the others waiting. Returns when there is only this process.
void abort_world(int exit_code);

}  // namespace heddle
