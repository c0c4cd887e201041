#define HEDDLE_ABI own
#include "tests/sim/cudart_abi_table.h"

namespace heddle::test::own {

std::vector<AbiRow> cuda_table() {
  return cuda_rows();
}

}  // namespace heddle::test::own
