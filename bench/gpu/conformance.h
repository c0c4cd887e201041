// What single instructions do, as words: every wrapper of kernels/arch/ptx.h on fixed random operands, its registers and shared memory dumped raw.
// The same sources run on the simulated machine and on a GPU; the two must agree.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace heddle::bench {

using Words = std::vector<uint32_t>;

struct ConformanceCase {
  std::string name;
  int capability = 80;  // of the GPU it needs
  std::function<Words()> dump;
  // Empty: the words must be equal, bit for bit (moves, integers, sums that are exact in any order). Else word i is an fp32 result of an
  // approximating instruction and may be off by tolerance[i % size] * max(1, |it|).
  std::vector<double> tolerance = {};
};

// By area; conformance_cases() is all of them, in a fixed order.
std::vector<ConformanceCase> warp_cases();
std::vector<ConformanceCase> memory_cases();
std::vector<ConformanceCase> barrier_cases();
std::vector<ConformanceCase> tma_cases();
std::vector<ConformanceCase> wgmma_cases();
std::vector<ConformanceCase> conformance_cases();

// The maps of kernels/arch/fragments.h that kernels rely on, against products worked out element by element: "" or which register differs. With
// `plant` the map of the accumulators is wrong on purpose, to see that the check can fail.
std::string check_fragment_maps(bool plant);

}  // namespace heddle::bench
