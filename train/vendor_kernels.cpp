#include "train/vendor_kernels.h"

#include <cstdio>

#include "kernels/api/matmul.h"

namespace heddle {

VendorKernels::VendorKernels(GemmChoice gemm, Device device) {
  if (gemm != GemmChoice::vendor) return;
  kernels::matmul.prefer("cublaslt");
  if (kernels::matmul.preferred(device.type).empty())
    missing_ = concat("--gemm vendor: ", name_of(device), " has no matrix products of a vendor's; heddle's own are used");
}

VendorKernels::VendorKernels(kernels::ProductNames products) {
  if (products.empty()) return;
  kernels::vendor_takes_only(std::move(products));
  kernels::matmul.prefer("cublaslt");
}

VendorKernels::~VendorKernels() {
  kernels::matmul.prefer({});
  kernels::vendor_takes_only({});
}

void VendorKernels::warn() const {
  if (!missing_.empty()) std::fprintf(stderr, "heddle: warning: %s\n", missing_.c_str());
}

}  // namespace heddle
