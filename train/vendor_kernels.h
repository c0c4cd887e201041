// --gemm: whose matrix products a GPU does.
#pragma once

#include <string>

#include "kernels/api/types.h"
#include "kernels/api/vendor_choice.h"
#include "train/config/run_config.h"

namespace heddle {

// Prefers the candidates of a vendor's library (kernels/vendor) where that was asked for, as long as one object lives: they do what they can,
// heddle's own kernels all else. --kernel wins.
class VendorKernels {
 public:
  VendorKernels(GemmChoice gemm, Device device);
  // --gemm auto, measured: these products alone.
  explicit VendorKernels(kernels::ProductNames products);
  ~VendorKernels();
  VendorKernels(const VendorKernels&) = delete;
  VendorKernels& operator=(const VendorKernels&) = delete;

  // What was asked for and is not to be had on this device, for people; "": nothing.
  const std::string& missing() const { return missing_; }
  // Writes it to stderr as a warning.
  void warn() const;

 private:
  std::string missing_;
};

}  // namespace heddle
