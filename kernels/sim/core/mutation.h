// Mutations: leaving out or weakening one synchronisation at run time, to see whether a kernel's own tests notice.
//
//   HEDDLE_SIM_MUTATE=kernels/cuda/norm.cu:31:drop ./norm_test            should fail
//   HEDDLE_SIM_MUTATE=kernels/cuda/gemm.cu:88#__syncthreads:drop ./...    one operation of a line that holds several
//   HEDDLE_SIM_MUTATE_LIST=sites.txt ./norm_test                          writes every mutation of every site that ran, one per line, as above
//
// At the end of the process a line on stderr tells if HEDDLE_SIM_MUTATE changed nothing, or if the list could not be written.
//
// The program heddle-mutate does all of it for a test program. A file matches by its last path components.
//
// Besides drop and weaken there is elect, for fences: only the first lane of each warp executes it, as where many lanes store and one, elected,
// releases for them all.
//
// Weakened, a wait leaves one group more pending, an mbarrier's wait takes the other parity, an arrival releases nothing or announces 16 bytes less,
// an mbarrier expects one arrival less, a barrier of some warps one warp less, an atomic is relaxed, and a multicast leaves its last block out. The
// masks of warp collectives need no mutation: a lane outside its own mask, or missing from it, is always reported.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "kernels/sim/core/machine.h"

namespace heddle::sim {

struct MutationSpec {
  std::string file;
  int line = 0;
  std::string what;  // empty: every operation of the line
  Mutation kind = Mutation::none;
  bool elect = false;  // kind drop, but not in the first lane of a warp
};

// Parses "file:line[#operation]:drop|weaken|elect"; throws Error on anything else.
MutationSpec parse_mutation(std::string_view text);

// Throws Error if HEDDLE_SIM_MUTATE is set and cannot be parsed. Called before a launch, so that no kernel seems to have thrown it.
void require_good_mutation_variable();

// What heddle-mutate sets through the environment, for tests inside one process. mutate_none() ends it.
void mutate(const MutationSpec& spec);
void mutate_none();

inline constexpr unsigned kMayElect = 4;  // a fence, which each thread executes for itself, in several lanes

struct MutationSite {
  std::string file;
  int line = 0;
  std::string what;
  unsigned kinds = 0;  // kMayDrop | kMayWeaken | kMayElect
};

// Between list_mutations(true) and (false) every site that runs is remembered; sites() gives them in the order of the source.
void list_mutations(bool on);
std::vector<MutationSite> mutation_sites();

}  // namespace heddle::sim
