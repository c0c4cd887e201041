// A build without NCCL.
#include "kernels/api/check.h"
#include "parallel/nccl_communicator.h"

namespace heddle {

void require_own_gpus(Control&, Device, double) {}  // there will be no communicator either

std::unique_ptr<Communicator> nccl_communicator(Control& control, Device, double, const CommunicatorOptions&) {
  fail("nccl",
       concat(control.size(),
              " ranks on GPUs need NCCL, which this build has not: install it (nccl.h, libnccl) and configure with HEDDLE_NCCL=ON, or start "
              "one rank"),
       ExitCode::no_device);
}

}  // namespace heddle
