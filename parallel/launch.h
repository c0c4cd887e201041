// What the launcher says of this process, before any plane exists.
#pragma once

#include <string>

namespace heddle {

// What a launcher (Open MPI's, MPICH's, Intel's mpirun, Slurm's srun) says of this process, also before MPI starts and in a build without it.
struct Launch {
  bool found = false;         // a launcher started it, be it alone: what it prints is collected by the launcher
  int ranks = 1, rank = 0;    // of the job
  const char* variable = "";  // that says how many
};
Launch launch_of_this_process();

// A sentence when this process was started alone where Slurm reserved places for several; else empty.
std::string unused_places();

// Those of this machine's ranks that are stopped, "rank 1 (process 4711)": what the launcher has started beside this process; "" when none is.
std::string stopped_siblings();

// This machine's name, "unknown" where it has none.
std::string host_name();

// Ends every rank of the job with this code: a rank that fails alone would leave the others waiting. Returns when there is only this process.
void abort_world(int exit_code);

}  // namespace heddle
