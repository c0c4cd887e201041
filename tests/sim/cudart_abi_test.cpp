// The headers of kernels/sim/include say what the toolkit's say.
#include "tests/sim/cudart_abi.h"

#include "tests/support/catch.h"

namespace heddle::test {
namespace {

// NCCL names its configuration after the version that last changed it.
std::string without_version(std::string type) {
  const std::string config = "ncclConfig_v";
  const size_t at = type.find(config);
  if (at != std::string::npos) type.erase(at + config.size(), 5);
  return type;
}

void compare(const std::vector<AbiRow>& own, const std::vector<AbiRow>& toolkit) {
  REQUIRE(own.size() == toolkit.size());
  for (size_t i = 0; i < own.size(); ++i) {
    INFO(own[i].name);
    CHECK(without_version(own[i].what) == without_version(toolkit[i].what));
  }
}

TEST_CASE("every declared CUDA name has the toolkit's type, value and size") {
  CHECK(own::cuda_table().size() > 300);
  compare(own::cuda_table(), toolkit::cuda_table());
}

#ifdef HEDDLE_HAVE_NCCL_HEADER
TEST_CASE("every declared NCCL name has the library's type and value") {
  CHECK(own::nccl_table().size() > 60);
  compare(own::nccl_table(), toolkit::nccl_table());
}
#endif

#ifdef HEDDLE_HAVE_CUBLASLT_HEADER
TEST_CASE("every declared cuBLASLt name has the library's type, value and size") {
  CHECK(own::cublaslt_table().size() > 60);
  compare(own::cublaslt_table(), toolkit::cublaslt_table());
}
#endif

}  // namespace
}  // namespace heddle::test
