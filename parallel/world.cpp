// The choice between one rank and many, and the end of all of them.
#include <cstdlib>
#include <string>

#include "kernels/api/check.h"
#include "parallel/control.h"
#include "parallel/launch.h"
#include "parallel/pulse.h"
#include "parallel/watchdog.h"

#ifdef HEDDLE_HAVE_MPI
#include "parallel/mpi_internal.h"
#endif

namespace heddle {

std::unique_ptr<Control> world_control(double patience) {
  const auto [found, ranks, rank, variable] = launch_of_this_process();
  if (!found || ranks <= 1) return local_control();
#ifdef HEDDLE_HAVE_MPI
#ifdef OPEN_MPI
  constexpr bool kOpenMpi = true;
#else
  constexpr bool kOpenMpi = false;
#endif
  constexpr const char* kSrun = kOpenMpi ? "srun --mpi=pmix" : "srun --mpi=pmi2";
  // Open MPI ends such a rank by itself, with a code after which jobs are started again.
  if (kOpenMpi && variable == std::string_view("SLURM_STEP_NUM_TASKS") && !std::getenv("PMIX_RANK")) {
    fail("mpi",
         concat("srun started this as rank ", rank, " of ", ranks, " (", variable,
                ") without PMIx, by which ranks of Open MPI find one another: use ", kSrun),
         ExitCode::usage);
  }
  const CallGuard guard("MPI_Init", patience * phase::kStartUp.patience);
  if (!mpi_is_running()) {
    int provided = 0;
    static double finalize_patience;
    finalize_patience = patience;
    // The checkpoint writer talks to its peers, over a communicator of its own, while the training thread waits in a collective. Taking turns
    // would not do: ranks whose turns fall to different threads would wait for one another.
    if (MPI_Init_thread(nullptr, nullptr, MPI_THREAD_MULTIPLE, &provided) != MPI_SUCCESS) fail("mpi", "MPI_Init_thread failed");
    if (provided < MPI_THREAD_MULTIPLE) {
      MPI_Finalize();
      fail("mpi", "this MPI library allows no calls from two threads at once (MPI_THREAD_MULTIPLE); use a build of it that does");
    }
    // What becomes of a request MPICH tells one of these two, whichever communicator it is of.
    for (MPI_Comm comm : {MPI_COMM_WORLD, MPI_COMM_SELF}) MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
    std::atexit([] {
      if (!mpi_is_running()) return;
      let_watchdogs_end();
      const CallGuard guard("MPI_Finalize", finalize_patience);
      MPI_Finalize();
    });
  }
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size == 1) {
    char library[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    MPI_Get_library_version(library, &length);
    const std::string_view name = std::string_view(library, static_cast<size_t>(length));
    fail("mpi",
         concat(variable, " says that this is rank ", rank, " of ", ranks, ", but ", name.substr(0, name.find_first_of(",\n")),
                ", which this program was built with, finds no other: use its mpirun or ", kSrun, ", or unset ", variable, " to train alone"),
         ExitCode::usage);
  }
  MPI_Comm own;
  MPI_Comm_dup(MPI_COMM_WORLD, &own);
  auto world = mpi_control(own);
  set_error_rank(world->rank());
  return world;
#else
  static_cast<void>(patience);
  fail("mpi", concat("started as one of ", ranks, " ranks, but this build has no MPI; configure with HEDDLE_MPI=ON"), ExitCode::usage);
#endif
}

void abort_world(int exit_code) {
#ifdef HEDDLE_HAVE_MPI
  int size = 1;
  if (!mpi_is_running()) return;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  if (size > 1) MPI_Abort(MPI_COMM_WORLD, exit_code);
#else
  (void)exit_code;
#endif
}

}  // namespace heddle
