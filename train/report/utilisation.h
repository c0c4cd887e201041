// Model FLOPs utilisation: what a step multiplies and adds against what the GPUs could.
#pragma once

#include <string_view>

namespace heddle {

// FLOP/s of dense bf16 products with fp32 sums, of a GPU by the name that its driver gives it ("NVIDIA H100 80GB HBM3"), from NVIDIA's data sheets.
// 0: not known.
double peak_flops(std::string_view gpu);

}  // namespace heddle
