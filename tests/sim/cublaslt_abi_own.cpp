#define HEDDLE_ABI own
#include "tests/sim/cublaslt_abi_table.h"

namespace heddle::test::own {

std::vector<AbiRow> cublaslt_table() {
  return cublaslt_rows();
}

}  // namespace heddle::test::own
