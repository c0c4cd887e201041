// Four ranks under mpirun, of which one dies (SIGKILL) at a point of its step or of its save: each of the four at each of six points. Every process
// of the job is gone within ten seconds, and the same command ends with the bits of a run that nobody touched.
//
// A rank is this program once more, in the hidden case below: it comes by the points of a run through kernels that a test stands in for and through
// the functions of MPI and of the C library that this file defines over the originals.
#include <fcntl.h>
#define OMPI_SKIP_MPICXX 1  // the C interface alone
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <thread>

#include "checkpoint/run_directory.h"
#include "kernels/api/embedding.h"
#include "parallel/launch.h"
#include "tests/support/program.h"
#include "tests/train/pretrain_support.h"

namespace {

constexpr const char* kPoints[] = {"forward", "backward", "reduce", "write", "report", "commit"};
constexpr int kRanks = 4, kSaveEvery = 4, kStepOfDeath = 6, kSaveOfDeath = 8;

// Of the rank that is to die; "": this one is not.
std::string point, mark;
int forwards = 0, backwards = 0;
thread_local bool has_written = false;  // this thread is a writer whose file is on the disk

bool is_due(std::string_view here) {
  return point == here;
}
void die() {
  ::close(::open(mark.c_str(), O_WRONLY | O_CREAT, 0600));
  ::raise(SIGKILL);
}
void come_by_reduction() {
  if (is_due("reduce") && backwards >= kStepOfDeath && !has_written) die();
}
// The writer's messages: what it has written, then, on all but rank 0, that it is committed.
void come_by_message(bool waits) {
  if (!has_written) return;
  const bool first = heddle::launch_of_this_process().rank == 0 || !waits;
  if (is_due("report") && first) die();
  if (is_due("commit") && !first) die();
}

}  // namespace

extern "C" {
int fsync(int handle) {
  if (forwards >= kSaveOfDeath) {
    if (is_due("write")) die();
    has_written = true;
  }
  return static_cast<int>(::syscall(SYS_fsync, handle));
}
int renameat(int from_at, const char* from, int to_at, const char* to) noexcept {
  if (is_due("commit") && has_written && std::strcmp(to, heddle::kManifest) == 0) die();
  return static_cast<int>(::syscall(SYS_renameat2, from_at, from, to_at, to, 0));
}
int MPI_Iallreduce(const void* in, void* out, int n, MPI_Datatype type, MPI_Op op, MPI_Comm comm, MPI_Request* request) {
  come_by_reduction();
  return PMPI_Iallreduce(in, out, n, type, op, comm, request);
}
int MPI_Ireduce(const void* in, void* out, int n, MPI_Datatype type, MPI_Op op, int root, MPI_Comm comm, MPI_Request* request) {
  come_by_reduction();
  return PMPI_Ireduce(in, out, n, type, op, root, comm, request);
}
int MPI_Isend(const void* data, int n, MPI_Datatype type, int to, int tag, MPI_Comm comm, MPI_Request* request) {
  come_by_message(false);
  return PMPI_Isend(data, n, type, to, tag, comm, request);
}
int MPI_Improbe(int from, int tag, MPI_Comm comm, int* found, MPI_Message* message, MPI_Status* status) {
  come_by_message(true);
  return PMPI_Improbe(from, tag, comm, found, message, status);
}
}

namespace heddle {
namespace {

using test::Program;
using test::Scratch;

constexpr double kPatience = 120;  // seconds for what takes one

TEST_CASE("a rank of a run", "[.rank]") {
  const std::string victim = std::getenv("RANK_KILLS_RANK"), out = std::getenv("RANK_KILLS_OUT");
  if (std::to_string(launch_of_this_process().rank) == victim) {
    point = std::getenv("RANK_KILLS_POINT");
    mark = out + ".died";
  }
  const test::Intercept<kernels::EmbeddingForwardArgs> forward(
      kernels::embedding_forward,
      [](const kernels::EmbeddingForwardArgs&) {
        if (++forwards == kStepOfDeath && is_due("forward")) die();
      },
      nullptr);
  const test::Intercept<kernels::EmbeddingBackwardArgs> backward(
      kernels::embedding_backward,
      [](const kernels::EmbeddingBackwardArgs&) {
        if (++backwards == kStepOfDeath && is_due("backward")) die();
      },
      nullptr);
  CHECK(test::run(out, {{"data", std::getenv("RANK_KILLS_DATA")},
                        {"total-batch-tokens", "256"},
                        {"save-every", std::to_string(kSaveEvery)},
                        {"optimizer", std::getenv("RANK_KILLS_OPTIMIZER")}}) == 0);
}

std::vector<pid_t> processes_of(const std::string& program) {
  std::vector<pid_t> found;
  for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
    std::error_code gone;
    const std::filesystem::path of = std::filesystem::read_symlink(entry.path() / "exe", gone);
    const pid_t process = std::atoi(entry.path().filename().c_str());
    if (!gone && of == program && process > 0 && process != ::getpid()) found.push_back(process);
  }
  return found;
}

TEST_CASE("each of four ranks dies at each of six points of a step and of a save") {
  for (const char* allow : {"OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "OMPI_MCA_mpi_yield_when_idle", "OMP_NUM_THREADS"})
    ::setenv(allow, "1", 1);
  const std::string self = std::filesystem::read_symlink("/proc/self/exe");
  const Scratch folder;
  ::setenv("RANK_KILLS_DATA", test::data_set().train().c_str(), 1);
  int died = 0, equal = 0, orphans = 0, at = 0;
  const auto start = [&](const std::string& run, int victim, const char* where) {
    ::setenv("RANK_KILLS_OUT", (folder / run).c_str(), 1);
    ::setenv("RANK_KILLS_RANK", std::to_string(victim).c_str(), 1);
    ::setenv("RANK_KILLS_POINT", where, 1);
    return Program({HEDDLE_MPIRUN, "-np", std::to_string(kRanks), "--oversubscribe", self, "[.rank]"}, folder / "log").wait(kPatience);
  };
  std::string whole[2];
  for (const bool muon : {false, true}) {
    ::setenv("RANK_KILLS_OPTIMIZER", muon ? "muon" : "adamw", 1);
    const std::string name = muon ? "muon" : "adamw";
    REQUIRE(start(name, -1, "") == 0);
    whole[muon] = digest(folder / name);
  }
  for (int rank = 0; rank < kRanks; ++rank) {
    for (const char* const where : kPoints) {
      const bool muon = ++at % 2 == 0;
      ::setenv("RANK_KILLS_OPTIMIZER", muon ? "muon" : "adamw", 1);
      const std::string run = concat("rank", rank, where);
      INFO(run);
      const int code = start(run, rank, where);
      CHECK(code == 128 + SIGKILL);
      died += std::filesystem::exists(folder / (run + ".died"));
      for (int i = 0; i < 1000 && !processes_of(self).empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
      orphans += static_cast<int>(processes_of(self).size());
      INFO(test::slurp(folder / "log"));
      CHECK(start(run, -1, "") == 0);
      equal += digest(folder / run) == whole[muon];
    }
  }
  constexpr int kCases = kRanks * static_cast<int>(std::size(kPoints));
  std::printf("%d of %d ranks died where they were to; %d processes outlived their job; %d runs ended with equal bits\n", died, kCases, orphans,
              equal);
  CHECK(died == kCases);
  CHECK(orphans == 0);
  CHECK(equal == kCases);
}

}  // namespace
}  // namespace heddle
