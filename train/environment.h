// What the bits of a run depend on beside its configuration: program, processor, libraries, how ranks share the work. Stored with each checkpoint,
// compared on resume.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/device.h"
#include "train/config/run_config.h"

namespace heddle {

// One "name: value" a line, printable ASCII:
//   program    version and build id of the executable (the hash that the linker put into it)
//   compiler   name, version, build type, architecture flags
//   processor  its model: libm and BLAS choose their code by it
//   device     cpu, or the GPU
//   libraries  every shared object in the process with the first digits of its build id; compared are those that compute, and told of them those that
//   differ kernels    --kernel, --gemm;     absent without folder     where the start that saved was: its relative paths are seen from there. No part
//   of a comparison layout     dp and --batch; under --deterministic --batch alone, since dp does not matter then
std::string environment_text(const RunConfig& config, Device device, int ranks);

std::string processor();  // its model, as the system names it

// Of environment_text(); "" where another version wrote none.
std::string folder_of(std::string_view environment);

struct EnvironmentChange {
  std::string name, saved, now;  // "" for a line that is not there
};
// The lines that differ. None: a resumed run makes the bits of one that was not stopped. Any: the state is bit-equal, the steps after it may round
// differently. `saved` may be what another version wrote.
std::vector<EnvironmentChange> compare_environments(std::string_view saved, std::string_view now);

}  // namespace heddle
