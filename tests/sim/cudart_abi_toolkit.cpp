#define HEDDLE_ABI toolkit
#include "tests/sim/cudart_abi_table.h"

namespace heddle::test::toolkit {

std::vector<AbiRow> cuda_table() {
  return cuda_rows();
}

}  // namespace heddle::test::toolkit
