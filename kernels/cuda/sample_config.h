// How sampling is laid over a block.
#pragma once

#include <cstddef>
#include <cstdint>

namespace heddle::kernels::cuda {

inline constexpr int kSampleThreads = 512, kSampleWarps = kSampleThreads / 32;
inline constexpr int kDigits = 2048, kDigitBits = 11;  // of a digit: bits 31-21, 20-10 and 9-0 of a logit's rank
// Two histograms of counts and of weights in two words; three words, a count and a weight of each warp; what a selection has found.
inline constexpr size_t kSampleSharedBytes = size_t{2} * 3 * kDigits * 4 + kSampleWarps * (4 * 4 + 8) + 16;

}  // namespace heddle::kernels::cuda
