// Control: the host plane. Who the ranks are, small texts, votes and sums between them. Device memory goes through a Communicator.
//
// Passed in, never global; one rank is not special. A call is collective: every rank of the group makes it, in the same order. Calls of one Control
// come from one thread at a time; another thread needs a Control of its own (split): the checkpoint writer talks to its peers while the training
// thread waits in a collective. Errors name the call and this rank.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "kernels/api/check.h"
#include "kernels/api/types.h"

namespace heddle {

class Communicator;

inline constexpr double kHangLimit = 600;  // seconds that ranks wait for one another, where nobody says otherwise

struct CommunicatorOptions {
  int64_t most_bytes = int64_t{1} << 30;  // of one message: what is larger goes in pieces (MPI counts elements in ints)
  double patience = kHangLimit / 2;       // seconds that a rank may let others wait, where the library would wait for ever (NCCL)
  bool time_joins = false;                // for Communicator::take_waited()
};

// Ranks that have not answered in time, as far as this one knows: rank 0 knows each, the others that rank 0 has not answered.
class RanksMissing : public Error {
 public:
  RanksMissing(const std::string& text, std::vector<int> ranks) : Error(text, ExitCode::hung), ranks_(std::move(ranks)) {}
  const std::vector<int>& ranks() const { return ranks_; }

 private:
  std::vector<int> ranks_;
};

class Control {
 public:
  virtual ~Control() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;

  // The ranks that pass the same color, ordered by (key, rank).
  virtual std::unique_ptr<Control> split(int color, int key) = 0;

  // Every rank's bytes, in rank order. `seconds` > 0: when a rank has not answered by then, on this rank's clock while it runs, RanksMissing, an
  // Error(hung), names them; a group that has given up once is of no further use.
  virtual std::vector<std::string> gather_text(const std::string& mine, double seconds = 0) = 0;

  // The device plane of the same ranks, for memory of `device`.
  virtual std::unique_ptr<Communicator> communicator(Device device, const CommunicatorOptions& options = {}) = 0;

  // Added in rank order: the same bits on every rank and on every start.
  std::vector<double> sum_in_rank_order(std::span<const double> mine);
  double sum_in_rank_order(double mine) { return sum_in_rank_order(std::span<const double>(&mine, 1))[0]; }
  int vote_max(int mine);
  void barrier() { gather_text({}); }
};

// One rank.
std::unique_ptr<Control> local_control();

// MPI_COMM_WORLD when the process was started by an MPI launcher with more than one rank, else local. Initialises MPI on first use and finalises it
// at exit; either ends the process with 86 when other ranks let it wait for `patience` seconds (0: for ever). Error(usage) when launched on several
// ranks by a build without MPI, or when MPI finds this process alone although the launcher's variables speak of several: each of them would train the
// same run by itself.
std::unique_ptr<Control> world_control(double patience = kHangLimit);

}  // namespace heddle
