#include "parallel/local_device.h"

#include <cstdlib>

#include "kernels/api/check.h"
#include "parallel/launch.h"

namespace heddle {

int device_of_rank(int devices) {
  const Launch launch = launch_of_this_process();
  // Which rank of its host this one is, by all who speak of this rank. Others do not count: the ranks that mpirun starts in a batch script of Slurm
  // all inherit the script's own SLURM_LOCALID.
  struct Names {
    const char *rank, *local;
  };
  int number = 0;
  const char* variable = "";
  for (const Names& names : {Names{"OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"},
                             {"PMI_RANK", "MPI_LOCALRANKID"},
                             {"MPI_LOCALRANKID", "MPI_LOCALRANKID"},
                             {"SLURM_PROCID", "SLURM_LOCALID"}}) {
    const char *rank = std::getenv(names.rank), *local = std::getenv(names.local);
    if (!launch.found || !rank || !local || std::atoi(rank) != launch.rank) continue;
    if (*variable && std::atoi(local) != number) {
      fail("launch",
           concat("rank ", launch.rank, " is number ", number, " on its host by ", variable, " and ", local, " by ", names.local,
                  ": unset the one that another launcher has left"),
           ExitCode::usage);
    }
    number = std::atoi(local);
    variable = names.local;
  }
  if (devices <= 1) return 0;
  if (number < devices) return number;
  fail("launch",
       concat("rank ", launch.rank, " is number ", number, " on its host (", variable, "), which shows it ", devices,
              " GPUs, counted from 0: start no more ranks on a host than it has GPUs"),
       ExitCode::usage);
}

}  // namespace heddle
