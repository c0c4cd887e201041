#define HEDDLE_ABI own
#include "tests/sim/nccl_abi_table.h"

namespace heddle::test::own {

std::vector<AbiRow> nccl_table() {
  return nccl_rows();
}

}  // namespace heddle::test::own
