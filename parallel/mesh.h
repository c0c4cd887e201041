// Mesh: the ranks of a job by axis, dp x tp, with both planes. tp is the innermost axis: the ranks of a tp group are neighbours.
#pragma once

#include <memory>

#include "core/layout.h"
#include "parallel/communicator.h"
#include "parallel/control.h"

namespace heddle {

class Mesh {
 public:
  // Collective over `world`. Error(usage) when it has not dp x tp ranks.
  Mesh(std::unique_ptr<Control> world, int dp, int tp, Device device, const CommunicatorOptions& options = {});

  const MeshShape& shape() const { return shape_; }
  Control& control() const { return *world_; }  // of all ranks
  Communicator& dp() const { return *dp_; }     // ranks with this one's tp rank
  Communicator& tp() const { return *tp_; }     // ranks with this one's dp rank

 private:
  std::unique_ptr<Control> world_;
  MeshShape shape_;
  std::unique_ptr<Communicator> dp_, tp_;
};

}  // namespace heddle
