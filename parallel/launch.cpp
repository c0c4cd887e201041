#include "parallel/launch.h"

#include <unistd.h>

#include <cstdlib>
#include <optional>

#include "kernels/api/check.h"
#include "parallel/process_tree.h"

namespace heddle {

Launch launch_of_this_process() {
  struct Names {
    const char *ranks, *rank;
  };
  // Open MPI, PMI (MPICH, Intel), Intel on one machine.
  for (const Names& names :
       {Names{"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"}, {"PMI_SIZE", "PMI_RANK"}, {"MPI_LOCALNRANKS", "MPI_LOCALRANKID"}}) {
    const char *ranks = std::getenv(names.ranks), *rank = std::getenv(names.rank);
    if (ranks) return {true, std::atoi(ranks), rank ? std::atoi(rank) : 0, names.ranks};
  }
  // A task of srun; with --mpi=none it has no PMIX_RANK, and MPI will not find the others.
  constexpr const char* kTasks = "SLURM_STEP_NUM_TASKS";
  const char *ranks = std::getenv(kTasks), *pmix = std::getenv("PMIX_RANK"), *rank = pmix ? pmix : std::getenv("SLURM_PROCID");
  if (std::getenv("SLURM_STEP_ID") && rank && ranks && (pmix || std::atoi(ranks) > 1)) return {true, std::atoi(ranks), std::atoi(rank), kTasks};
  return {};
}

std::string unused_places() {
  const char *tasks = std::getenv("SLURM_NTASKS"), *job = std::getenv("SLURM_JOB_ID");
  if (!tasks || !job || std::atoi(tasks) <= 1 || launch_of_this_process().found) return {};
  return concat("SLURM_NTASKS is ", tasks, ", but this process was started alone and is the only rank; srun or mpirun starts them all");
}

std::string host_name() {
  char name[256] = "";
  if (::gethostname(name, sizeof name - 1) != 0 || name[0] == '\0') return "unknown";
  return name;
}

std::string stopped_siblings() {
  std::string out;
  for (const Process& p : processes()) {
    if ((p.state != 'T' && p.state != 't') || p.parent != ::getppid()) continue;
    if (const std::optional<int> rank = rank_of(p)) out += concat(out.empty() ? "rank " : ", rank ", *rank, " (process ", p.id, ")");
  }
  return out;
}

}  // namespace heddle
