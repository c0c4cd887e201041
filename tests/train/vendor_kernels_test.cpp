// --gemm: whose matrix products are preferred, and for how long.
#include "train/vendor_kernels.h"

#include "kernels/api/matmul.h"
#include "tests/support/catch.h"

namespace heddle {
namespace {

TEST_CASE("--gemm vendor prefers the vendor's products while it holds, and says where there are none") {
  constexpr Device gpu{DeviceType::cuda, 0};
  const auto preferred = [] { return kernels::matmul.preferred(DeviceType::cuda); };
  if (kernels::matmul.candidates(DeviceType::cuda).empty()) {  // a program without a GPU's kernels
    CHECK(VendorKernels(GemmChoice::vendor, gpu).missing() == "--gemm vendor: cuda:0 has no matrix products of a vendor's; heddle's own are used");
    kernels::matmul.add(DeviceType::cuda, {"cublaslt", nullptr});
  }
  {
    const VendorKernels vendor(GemmChoice::vendor, gpu);
    CHECK(preferred() == "cublaslt");
    CHECK(vendor.missing() == "");
  }
  CHECK(preferred() == "");
  for (const GemmChoice own : {GemmChoice::automatic, GemmChoice::heddle}) {
    const VendorKernels vendor(own, gpu);
    CHECK(preferred() == "");
  }
  CHECK(VendorKernels(GemmChoice::vendor, Device{}).missing() == "--gemm vendor: cpu has no matrix products of a vendor's; heddle's own are used");
}

}  // namespace
}  // namespace heddle
