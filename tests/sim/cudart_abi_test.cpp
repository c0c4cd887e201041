// The headers of kernels/sim/include say what the toolkit's say.
#include "tests/sim/cudart_abi.h"

#include "tests/support/catch.h"

namespace heddle::test {
namespace {

void compare(const std::vector<AbiRow>& own, const std::vector<AbiRow>& toolkit) {
  REQUIRE(own.size() == toolkit.size());
  for (size_t i = 0; i < own.size(); ++i) {
    INFO(own[i].name);
    CHECK(own[i].what == toolkit[i].what);
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

}  // namespace
}  // namespace heddle::test
