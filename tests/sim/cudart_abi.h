#pragma once

#include <string>
#include <typeinfo>
#include <vector>

namespace heddle::test {

struct AbiRow {
  std::string name, what;
};

namespace own {
std::vector<AbiRow> cuda_table();
std::vector<AbiRow> nccl_table();
std::vector<AbiRow> cublaslt_table();
}  // namespace own
namespace toolkit {
std::vector<AbiRow> cuda_table();
std::vector<AbiRow> nccl_table();
std::vector<AbiRow> cublaslt_table();
}  // namespace toolkit

}  // namespace heddle::test
