#define HEDDLE_ABI toolkit
#include "tests/sim/cublaslt_abi_table.h"

namespace heddle::test::toolkit {

std::vector<AbiRow> cublaslt_table() {
  return cublaslt_rows();
}

}  // namespace heddle::test::toolkit
