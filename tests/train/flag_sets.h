// Random command lines of heddle pretrain, none of which may be refused: every kind of model, horizon, schedule, optimizer, rank count, data,
// precision and output that a user can combine, made small enough to train in a fraction of a second.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace heddle::test {

struct FlagSet {
  uint64_t seed = 0;
  std::vector<std::string> flags;  // all but --out, --data, --val and --time-limit
  bool in_file = false;            // they stand in a --config file instead
  bool validates = false;          // with --val
  int ranks = 1;                   // started by mpirun
  int64_t steps = 0;               // about what the horizon is
  std::string prompt;              // for generate; empty: none

  // How the run is stopped: by a signal after a part of its steps, or, where that is 0, by a time limit in seconds.
  int signal = 0;
  double stop_at = 0, stop_again_at = 1;  // parts of the steps; 1: once is enough
  double time_limit = 0;

  // What a restart may say otherwise than the start did, and must not be refused for. `same_state`: it has no part in the numbers.
  std::vector<std::string> change;
  bool same_state = false;
};

// The flags of a command line as the lines of a config file that say the same.
std::string config_lines(const std::vector<std::string>& flags);

// The same set for the same numbers on any machine. `vocabulary`: of the data's tokenizer; most_ranks: 1 without MPI.
FlagSet random_flag_set(uint64_t seed, int64_t vocabulary, int most_ranks);

}  // namespace heddle::test
