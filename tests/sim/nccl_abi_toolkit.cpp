#define HEDDLE_ABI toolkit
#include "tests/sim/nccl_abi_table.h"

namespace heddle::test::toolkit {

std::vector<AbiRow> nccl_table() {
  return nccl_rows();
}

}  // namespace heddle::test::toolkit
