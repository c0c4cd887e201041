// Which of its host's GPUs a rank takes, by what launchers say.
#include <cstdlib>
#include <map>
#include <string>

#include "kernels/api/check.h"
#include "parallel/local_device.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

// An environment with these variables of launchers and no others, for a scope.
class Variables {
 public:
  explicit Variables(const std::map<std::string, std::string>& set) {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "PMI_SIZE", "PMI_RANK", "PMIX_RANK",
                             "MPI_LOCALNRANKS", "MPI_LOCALRANKID", "SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"}) {
      if (const char* value = std::getenv(name)) before_[name] = value;
      ::unsetenv(name);
      names_.push_back(name);
    }
    for (const auto& [name, value] : set) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Variables() {
    for (const char* name : names_) ::unsetenv(name);
    for (const auto& [name, value] : before_) ::setenv(name.c_str(), value.c_str(), 1);
  }
  Variables(const Variables&) = delete;
  Variables& operator=(const Variables&) = delete;

 private:
  std::vector<const char*> names_;
  std::map<std::string, std::string> before_;
};

int device_under(const std::map<std::string, std::string>& variables, int devices) {
  const Variables set(variables);
  return device_of_rank(devices);
}
const std::map<std::string, std::string> kOpenMpi{{"OMPI_COMM_WORLD_SIZE", "8"}, {"OMPI_COMM_WORLD_RANK", "6"}, {"OMPI_COMM_WORLD_LOCAL_RANK", "2"}};
const std::map<std::string, std::string> kHydra{{"PMI_SIZE", "8"}, {"PMI_RANK", "6"}, {"MPI_LOCALNRANKS", "4"}, {"MPI_LOCALRANKID", "2"}};
const std::map<std::string, std::string> kSrun{{"SLURM_STEP_ID", "0"}, {"SLURM_STEP_NUM_TASKS", "8"}, {"SLURM_PROCID", "6"}, {"SLURM_LOCALID", "2"}};

TEST_CASE("a rank's GPU is that of its number on the host, whichever launcher says it") {
  CHECK(device_under({}, 8) == 0);
  CHECK(device_under({{"MPI_LOCALNRANKS", "4"}, {"MPI_LOCALRANKID", "3"}}, 4) == 3);  // Intel's, on one machine
  for (const auto& launcher : {kOpenMpi, kHydra, kSrun}) {
    CHECK(device_under(launcher, 4) == 2);
    CHECK(device_under(launcher, 1) == 0);  // shown one alone
  }
}

TEST_CASE("more ranks than GPUs on a host are refused, with the variable that says so") {
  for (const auto& [launcher, variable] :
       {std::pair{kOpenMpi, "OMPI_COMM_WORLD_LOCAL_RANK"}, {kHydra, "MPI_LOCALRANKID"}, {kSrun, "SLURM_LOCALID"}}) {
    try {
      device_under(launcher, 2);
      FAIL("no error");
    } catch (const Error& e) {
      const std::string text = e.what();
      INFO(text);
      CHECK(e.code() == ExitCode::usage);
      CHECK(text.find(std::string("rank 6 is number 2 on its host (") + variable + "), which shows it 2 GPUs") != std::string::npos);
    }
  }
}

TEST_CASE("two launchers that speak of the same rank must agree; what a batch script left over counts for nothing") {
  std::map<std::string, std::string> both = kOpenMpi;
  both.insert(kSrun.begin(), kSrun.end());
  CHECK(device_under(both, 4) == 2);
  both.erase("SLURM_LOCALID");  // assigned, g++ 12 warns of its own header
  both.emplace("SLURM_LOCALID", "0");
  try {
    device_under(both, 4);
    FAIL("no error");
  } catch (const Error& e) {
    const std::string text = e.what();
    INFO(text);
    CHECK(e.code() == ExitCode::usage);
    CHECK(text.find("number 2 on its host by OMPI_COMM_WORLD_LOCAL_RANK and 0 by SLURM_LOCALID") != std::string::npos);
  }
  both.erase("SLURM_PROCID");
  both.emplace("SLURM_PROCID", "0");  // the script's own, inherited by every rank that mpirun started in it
  CHECK(device_under(both, 4) == 2);
}

}  // namespace
}  // namespace heddle
