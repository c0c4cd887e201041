// The squared norm of the whole gradient, of which a rank has summed only its part.
#pragma once

#include <memory>

#include "core/arena.h"
#include "parallel/communicator.h"

namespace heddle {

class SharedNorm {
 public:
  // A layout with fixed cells: each cell's squares are summed by its owner, and the cells' sums in their order: the same bits on any number of ranks.
  // Else `sharded` says that a rank has no sums but what it owns: its squares, and then the ranks' in rank order.
  SharedNorm(const Arena& arena, Communicator& comm, bool sharded);

  // (1) f64, the same on every rank, when the stream comes here. Collective.
  const Tensor& squared(Stream stream);

 private:
  const Arena& arena_;
  Communicator& comm_;
  bool by_cells_, sharded_;
  std::vector<Range> owned_;
  Tensor mine_, parts_, squared_;  // f64: (1), (cells) or (ranks), (1)
};

}  // namespace heddle
