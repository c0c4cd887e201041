// --gemm auto on a GPU: each matrix product of a step is done by heddle's own kernel or by a vendor's library (kernels/vendor), whichever was faster
// when this GPU did both. Measured once, kept in the run's directory and in the user's cache; other runs, and a run that goes on, take what is kept.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kernels/api/vendor_choice.h"
#include "models/transformer.h"
#include "train/config/run_config.h"
#include "train/kernel_case.h"

namespace heddle {

struct GemmTimes {
  std::string product;  // product_name()
  std::string own;      // heddle's candidate for it
  double own_us = 0, vendor_us = 0;
  double difference = 0;  // of the vendor's result beside heddle's, as a part of its size
  double calls = 0;       // of a step; not kept
};
struct GemmChoices {
  std::string machine;  // program, GPU and libraries: what the times are worth on
  std::vector<GemmTimes> products;

  // Faster by more than times vary, with a result that agrees within the dtype's rounding.
  kernels::ProductNames of_vendor() const;
  std::string to_text() const;
  // Error(bad_data), naming `path`, for what to_text() did not write.
  static GemmChoices parse(std::string_view text, const std::string& path);
};

// Microseconds of one call: of heddle's candidate, of the vendor's.
using TimeGemm = std::function<std::pair<double, double>(KernelCase&, std::string_view own, std::string_view vendor)>;

// The products of a step that both can do: as `run_file` has them for this machine, else a file in `cache`, a folder that need not be there ("":
// none), else measured on `device`. Either file is completed; `tell` hears in a line of one that cannot be read or written, and of a result that
// differs.
GemmChoices choose_gemms(const RunConfig& config, const TransformerConfig& shape, Device device, const std::string& run_file,
                         const std::string& cache, const std::function<void(const std::string&)>& tell, const TimeGemm& time = {});

// "gemm: of 14 kinds of product cuBLASLt does 5 ...": for the console.
std::string summary(const GemmChoices& choices);

// $XDG_CACHE_HOME/heddle, else ~/.cache/heddle; "" where neither variable is an absolute path.
std::string cache_folder();

}  // namespace heddle
