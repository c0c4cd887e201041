#include "parallel/mesh.h"

#include "kernels/api/check.h"
#include "parallel/nccl_communicator.h"

namespace heddle {

Mesh::Mesh(std::unique_ptr<Control> world, int dp, int tp, Device device, const CommunicatorOptions& options) : world_(std::move(world)) {
  const int ranks = world_->size(), rank = world_->rank();
  if (dp < 1 || tp < 1 || dp * tp != ranks) {
    fail("mesh", concat("--dp ", dp, " x --tp ", tp, " are ", dp * tp, " ranks, but ", ranks, " were started"), ExitCode::usage);
  }
  shape_ = {.dp = dp, .tp = tp, .dp_rank = rank / tp, .tp_rank = rank % tp};
  if (dp > 1 && tp > 1 && device.type == DeviceType::cuda) require_own_gpus(*world_, device, options.patience);
  dp_ = world_->split(shape_.tp_rank, shape_.dp_rank)->communicator(device, options);
  tp_ = world_->split(shape_.dp_rank, shape_.tp_rank)->communicator(device, options);
}

}  // namespace heddle
